"""Target `verl`: rows fitted to the prompt length, and the command line, for the paper's Ulysses sequence
parallelism.

verl (0.9) cuts text prompts from the left and ignores `truncation: middle`, which would cut the instruction
off. So rows are fitted here, by whole passages, with the tokenizer that will train; nothing is left for verl
to cut.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icr_tasks import hub, storage
from icr_tasks.errors import IcrError, unknown

from ..config import SHIPPED
from ..data import formats
from ..data.store import arrow, read
from ..data.store import count as count_of
from ..rewards import registry
from ..rows import Report, counter, fit, opened

VERSION = "0.9.1"  # the verl whose keys configs/verl/ulysses4.yaml names


def main(argv: list[str]) -> int:
    """`icr train verl DATA --reward id --model NAME`: as `icr train export --to verl`, beside the data.
    Returns 0."""
    parser = argparse.ArgumentParser(prog="icr train verl", description=__doc__)
    parser.add_argument("data", type=Path, help="a folder made by `icr train data`")
    parser.add_argument("--reward", default="ao", help="the prompt is the reward's own")
    parser.add_argument(
        "--preset",
        default="paper",
        choices=tuple(registry.PRESETS),
        help="the reward as the paper prints it, or as its code has it",
    )
    parser.add_argument("--model", default="", help="the tokenizer that prompts are fitted with")
    parser.add_argument("--max-prompt-length", type=int, default=32768, help="tokens (default 32768)")
    args = parser.parse_args(argv)
    if args.reward not in registry.NAMES:
        raise unknown("reward", args.reward, registry.NAMES)
    args.out, args.limit = args.data, None
    print(export(args))
    return 0


def export(args: argparse.Namespace) -> str:
    """Write train.verl.parquet and dev.verl.parquet; returns the counts and the command."""
    asked = "ao" if args.reward == "hybrid" else args.reward  # hybrid reads the answer-only format
    if args.reward not in registry.PRESETS[args.preset]:
        raise IcrError(f"preset {args.preset!r} has no reward {args.reward!r}; use preset 'paper'")
    fitted = _fitter(args.model, asked, args.max_prompt_length)
    begun = bool(args.model) and opened(tokenizer_of(args.model), asked)
    lines = []
    for part in ("train", "dev"):
        source = args.data / f"{part}.parquet"
        if part == "dev" and (not source.is_file() or not count_of(source)):
            raise IcrError(
                f"verl needs held-out rows, but there are none at {source}; make the data with --dev 0.05"
            )
        registry.check(read(source), args.reward)
        report = Report()
        rows = (row for n, row in enumerate(read(source)) if args.limit is None or n < args.limit)
        made = (formats.verl(row, asked, args.reward) for row in rows_that_fit(rows, fitted, report))
        path = args.out / f"{part}.verl.parquet"
        count = write(path, made)
        lines.append(f"{path}: {count} rows" + (f" ({report})" if args.model else ""))
    if not args.model:
        lines.append(
            "prompts were not fitted: give --model, or verl cuts those over data.max_prompt_length from "
            "the left"
        )
    if args.reward in registry.JUDGED:
        lines.append("the judge: custom_reward_function.reward_kwargs.judge={base_url: ..., model: ...}")
    return "\n".join([*lines, "", command(args.out, args.reward, args.preset, begun)])


def tokenizer_of(model: str) -> Any:
    """The tokenizer that will train."""
    here = hub.local(model, "tokenizer")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model, local_files_only=here)


def _fitter(model: str, reward: str, limit: int) -> Any:
    if not model:
        return None
    count, sizes = counter(tokenizer_of(model), reward)
    return lambda row, report: fit(row, limit, count, sizes, "keep_gold", report)


def rows_that_fit(rows: Iterator[dict[str, Any]], fitted: Any, report: Report) -> Iterator[dict[str, Any]]:
    """The rows, cut by whole passages where there is a fitter; those whose gold alone is too long are left
    out."""
    for row in rows:
        cut = fitted(row, report) if fitted else row
        if cut is not None:
            yield cut


def write(path: Path, records: Iterator[dict[str, Any]]) -> int:
    """Write verl's columns, 256 rows at a time; the file appears when complete. Returns the number of
    rows."""
    pa = arrow()
    total = 0
    with storage.replacing(path) as temporary:
        first = [record for _, record in zip(range(256), records, strict=False)]
        if not first:
            raise IcrError(f"no rows for {path}")
        table = pa.Table.from_pylist(first)
        with pa.parquet.ParquetWriter(temporary, table.schema, compression="zstd") as out:
            while table.num_rows:
                out.write_table(table)
                total += table.num_rows
                batch = [record for _, record in zip(range(256), records, strict=False)]
                table = pa.Table.from_pylist(batch, schema=table.schema)
    return total


def command(data: Path, reward: str, preset: str, begun: bool = False) -> str:
    """The command that starts verl with our recipe and our reward function; `begun`: the template begins the
    thought."""
    spec = importlib.util.find_spec("icr_tasks.training.rewards.for_verl")
    assert spec is not None
    name = "compute_score_async" if reward in registry.JUDGED else "compute_score"
    options = {"reward": reward, "preset": preset, **({"opened": True} if begun else {})}
    given = json.dumps(options).replace('"', "")
    parts = [
        "python -m verl.trainer.main_ppo",
        f"--config-path {SHIPPED / 'verl'} --config-name ulysses4",
        f"data.train_files={data / 'train.verl.parquet'} data.val_files={data / 'dev.verl.parquet'}",
        f"custom_reward_function.path={spec.origin}",
        f"custom_reward_function.name={name}",
        f"'custom_reward_function.reward_kwargs={given}'",
        f"trainer.experiment_name=grpo-{reward}",
    ]
    return " \\\n  ".join(parts)
