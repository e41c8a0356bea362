"""`icr train verl DATA --reward id`: rows and command line for verl, which has the paper's Ulysses sequence
parallelism."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError, unknown
from icr_tasks.storage import replacing

from .config import SHIPPED
from .data import formats
from .data.store import arrow, read
from .rewards import registry


def main(argv: list[str]) -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(prog="icr train verl", description=__doc__)
    parser.add_argument("data", type=Path, help="a folder made by `icr train data`")
    parser.add_argument("--reward", default="ao", help="ao, id, idc or idq; the prompt is the reward's own")
    parser.add_argument("--preset", default="paper", choices=tuple(registry.PRESETS))
    args = parser.parse_args(argv)
    if args.reward not in registry.NAMES:
        raise unknown("reward", args.reward, registry.NAMES)
    if args.reward in registry.JUDGED:
        raise IcrError(
            "the verl recipe has no judge; train judged rewards with TRL (grpo_judge.yaml), or wrap compute_score"
        )
    for part in ("train", "dev"):
        source = args.data / f"{part}.parquet"
        registry.check(read(source), args.reward)
        count = write(
            args.data / f"{part}.verl.parquet", (formats.verl(row, args.reward) for row in read(source))
        )
        print(f"{args.data / f'{part}.verl.parquet'}: {count} rows")
    print("\n" + command(args.data, args.reward, args.preset))
    return 0


def write(path: Path, records: Iterator[dict[str, Any]]) -> int:
    """Write verl's columns, 256 rows at a time; the file appears when complete. Returns the number of
    rows."""
    pa = arrow()
    total, writer = 0, None
    with replacing(path) as temporary:
        while True:
            batch = [record for _, record in zip(range(256), records, strict=False)]
            if not batch:
                break
            table = pa.Table.from_pylist(batch, schema=writer.schema if writer else None)
            writer = writer or pa.parquet.ParquetWriter(temporary, table.schema, compression="zstd")
            writer.write_table(table)
            total += len(batch)
        if writer is None:
            raise IcrError(f"no rows for {path}")
        writer.close()
    return total


def command(data: Path, reward: str, preset: str) -> str:
    """The command that starts verl with our recipe and our reward function."""
    spec = importlib.util.find_spec("icr_tasks.training.rewards.for_verl")
    assert spec is not None
    parts = [
        "python -m verl.trainer.main_ppo",
        f"--config-path {SHIPPED / 'verl'} --config-name ulysses4",
        f"data.train_files={data / 'train.verl.parquet'} data.val_files={data / 'dev.verl.parquet'}",
        f"custom_reward_function.path={spec.origin}",
        f"'custom_reward_function.reward_kwargs={{reward: {reward}, preset: {preset}}}'",
        f"trainer.experiment_name=grpo-{reward}",
    ]
    return " \\\n  ".join(parts)
