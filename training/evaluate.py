"""`icr train eval RUN/checkpoint-*`: a sweep over checkpoints and their base model, then the gate on each of
them.

    icr train eval runs/ao/checkpoint-* --tasks icr_helmet_rag_32k --settings full,rag@16k --engine icr-vllm
    icr train eval runs/ao/checkpoint-880 --tasks icr_synth_short_256 --engine icr-hf --settings full,kv:topk@0.25

Each checkpoint answers with the prompt it was trained on (its icr.json says so); the base model answers with
the same one. Finished cells are not run again. Exit code: the worst of the gate's (1 REGRESSED, 4 NOT
COMPARABLE), 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from icr_tasks.checked import read_yaml
from icr_tasks.errors import IcrError
from icr_tasks.storage import write_atomic
from icr_tasks.sweep import cells, finish, plan
from icr_tasks.sweep import study as sweeps

from . import checkpoint

if TYPE_CHECKING:
    from icr_tasks.leaderboard.ledgers.load import Run


@dataclass(frozen=True)
class Trained:
    """A checkpoint folder and what its card says about it."""

    folder: Path
    base: str
    prompt: str
    adapter: bool = False
    rank: int = 0  # of the adapter
    template: tuple[tuple[str, Any], ...] = ()  # keyword arguments of the chat template it was trained with

    @property
    def name(self) -> str:
        """Run and step: "ao@880"."""
        return f"{self.folder.parent.name}@{checkpoint.step_of(self.folder)}"


def read(folder: Path) -> Trained:
    """Read a checkpoint's icr.json. IcrError for a folder that is not a checkpoint of ours."""
    folder = folder.resolve()
    path = folder / "icr.json"
    if not path.is_file():
        inner = checkpoint.all_of(folder) if folder.is_dir() else []
        hint = f"; it holds {', '.join(p.name for p in inner[-3:])}" if inner else ""
        raise IcrError(f"{folder} is not a checkpoint of `icr train` (no icr.json){hint}")
    try:
        found = json.loads(path.read_text())
        lora = found["config"].get("lora") or {}
        template = tuple(sorted((found.get("chat_template_kwargs") or {}).items()))
        alone, rank = lora.get("save") == "adapter", checkpoint.rank(lora)
        return Trained(folder, found["base_model"], found["prompt"], alone, rank, template)
    except (ValueError, KeyError) as error:
        raise IcrError(f"{path} cannot be read: {error!r}") from error


def study(
    trained: Sequence[Trained],
    *,
    engine: str,
    settings: Sequence[str],
    tasks: Sequence[str],
    limit: int | None = None,
    args: dict[str, Any] | None = None,
    gen: dict[str, Any] | None = None,
    out: Path,
) -> dict[str, Any]:
    """The study for `icr sweep`: every checkpoint, and each base model under the prompts of its
    checkpoints."""
    prompts: dict[str, list[str]] = {}
    templates: dict[Any, Any] = {}
    for one in trained:
        prompts.setdefault(_local(one.base), []).append(one.prompt)
        if templates.setdefault(_local(one.base), one.template) != one.template:
            raise IcrError(
                f"checkpoints of {one.base} were trained with different chat_template_kwargs; evaluate them "
                "in turn"
            )
    models = [
        {
            "name": name_of(base),
            "model": engine,
            "model_args": {"pretrained": base, **_template(templates[base]), **(args or {})},
            "prompts": sorted(set(used)),
        }
        for base, used in prompts.items()
    ]
    models += [
        {
            "name": one.name,
            "model": engine,
            "model_args": {**_weights(one, engine), **_template(one.template), **(args or {})},
            "prompts": [one.prompt],
        }
        for one in trained
        if str(one.folder) not in prompts
    ]
    tree = {"out": str(out), "models": models, "settings": list(settings), "tasks": list(tasks)}
    return tree | ({"limit": limit} if limit else {}) | ({"gen_kwargs": gen} if gen else {})


def _template(given: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """lm_eval's model arguments for the chat template's: base and checkpoint are asked as the checkpoint was
    trained."""
    rest = dict(given)
    thinking = {"enable_thinking": rest.pop("enable_thinking")} if "enable_thinking" in rest else {}
    return thinking | ({"chat_template_args": rest} if rest else {})


def name_of(model: str) -> str:
    """Run and step for a checkpoint folder, else the model's own name."""
    path = Path(model)
    return f"{path.parent.name}@{checkpoint.step_of(path)}" if checkpoint.step_of(path) >= 0 else path.name


def _weights(one: Trained, engine: str) -> dict[str, Any]:
    """Model arguments of a checkpoint: the folder, or base and adapter."""
    if not one.adapter:
        return {"pretrained": str(one.folder)}
    if "vllm" in engine:
        return {
            "pretrained": _local(one.base),
            "enable_lora": True,
            "lora_local_path": str(one.folder),
            **({"max_lora_rank": one.rank} if one.rank > 16 else {}),  # vLLM's default is 16
        }
    return {"pretrained": _local(one.base), "peft": str(one.folder)}


def _local(model: str) -> str:
    """A local folder as an absolute path; a hub id as it is."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def newest(results: Path) -> dict[tuple[str, str, str], Run]:
    """(weights, setting, prompt) -> its run. Where an earlier command left another one (other tokens to generate,
    another limit), the one begun last counts, and that is said."""
    from icr_tasks.leaderboard.ledgers import check, load

    found: dict[tuple[str, str, str], Run] = {}
    for run in sorted(load.load(results), key=lambda r: (check.began(r.head) or 0.0, r.fingerprint)):
        given = run.head["fingerprint_inputs"]["model_args"]
        source = str(given.get("peft") or given.get("lora_local_path") or given.get("pretrained"))
        key = source, run.setting, run.prompt
        if key in found:
            print(
                f"{run.folder.parent}: {run.fingerprint} counts, which began last; {found[key].fingerprint} is of "
                "an earlier command",
                file=sys.stderr,
            )
        found[key] = run
    return found


def verdicts(
    results: Path, trained: Sequence[Trained], margin: float, *, whole: bool = True
) -> list[tuple[str, str, str, Any]]:
    """(checkpoint, setting, prompt, gate verdict) for every setting that a checkpoint and its base model both
    finished.

    `whole=False` also compares runs that were limited to the same items.
    """
    from icr_tasks.leaderboard.pairs import gate
    from icr_tasks.leaderboard.pairs import joined as pairs

    runs = newest(results)
    out = []
    for one in trained:
        for (source, setting, prompt), run in runs.items():
            base = runs.get((_local(one.base), setting, one.prompt))
            if source == str(one.folder) and prompt == one.prompt and base is not None:
                joined = pairs.pair(base, run, whole=whole)
                out.append(
                    (one.name, setting, prompt, gate.gate(joined, margin=margin, benchmark_margin=margin))
                )
    return out


def table(found: Sequence[tuple[str, str, str, Any]]) -> str:
    """Markdown: base and new score, difference with its 90 % interval (clustered), verdict."""
    from icr_tasks.leaderboard.text.names import interval, points

    lines = [
        "| checkpoint | setting | prompt | base | new | Δ | 90 % CI | p | verdict |",
        "|---|---|---|---:|---:|---:|---|---:|---|",
    ]
    for name, setting, prompt, verdict in found:
        if verdict.comparison is None:
            lines.append(
                f"| {name} | {setting} | {prompt} | – | – | – | – | – | {verdict.verdict}: {verdict.reason} |"
            )
            continue
        line = verdict.comparison.lines[0]
        shown = f"{points(line.base.mean)} | {points(line.new.mean)} | {points(line.delta.mean, sign=True)}"
        lines.append(
            f"| {name} | {setting} | {prompt} | {shown} | {interval(line.delta.ci(0.90))} | "
            f"{line.delta.p:.2g} | {verdict.verdict} |"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """The exit code described above."""
    parser = argparse.ArgumentParser(
        prog="icr train eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, help="checkpoint folders")
    parser.add_argument("--tasks", required=True, help="comma-separated tasks or groups")
    parser.add_argument(
        "--settings", default="full", help="comma-separated, options and all: full,rag@4k,dense"
    )
    parser.add_argument(
        "--engine", default="icr-vllm", help="icr-vllm, vllm, icr-hf, hf ...; default: icr-vllm"
    )
    parser.add_argument("--model-args", default="", help="further model arguments, key=value,key=value")
    parser.add_argument("--limit", type=int, help="items a task")
    parser.add_argument("--max-gen-toks", type=int, help="tokens to generate; default: each prompt's own")
    parser.add_argument("--margin", type=float, default=2.0, help="points a checkpoint may lose (default: 2)")
    parser.add_argument("-o", "--out", type=Path, default=Path("eval"), help="study folder (default: eval)")
    parser.add_argument("--dry-run", action="store_true", help="print the matrix and its cost, run nothing")
    args = parser.parse_args(argv)
    trained = [read(folder) for folder in args.checkpoints]
    given = dict(part.partition("=")[::2] for part in args.model_args.split(",") if part)
    for part in args.model_args.split(","):
        if part and "=" not in part:
            raise IcrError(f"--model-args {part!r} has no value; write key=value,key=value")
    tree = study(
        trained,
        engine=args.engine,
        settings=sweeps.listed([args.settings]),
        tasks=args.tasks.split(","),
        limit=args.limit,
        args={k: read_yaml(v, f"--model_args {k}={v}") for k, v in given.items()},
        gen={"max_gen_toks": args.max_gen_toks} if args.max_gen_toks else None,
        out=args.out,
    )
    return run(tree, trained, args.out, margin=args.margin / 100, dry=args.dry_run)


def run(
    tree: dict[str, Any],
    trained: Sequence[Trained],
    out: Path,
    *,
    margin: float,
    dry: bool = False,
    jobs: int = 1,
) -> int:
    """Sweep (`jobs` engines at once) and gate; writes study.yaml and eval.md into `out`."""
    from icr_tasks.leaderboard.pairs.gate import CODES

    path = out / "study.yaml"
    write_atomic(path, yaml.safe_dump(tree, sort_keys=False).encode())
    swept = sweeps.load(path)
    chosen = cells.matrix(swept)
    if dry:
        print(plan.table(plan.plan(swept, chosen, 8, None), None))
        return 0
    code = finish.run(swept, chosen, jobs=jobs)
    if code:
        return code
    found = verdicts(out / "results", trained, margin, whole="limit" not in tree)
    text = table(found)
    write_atomic(out / "eval.md", f"{text}\n".encode())
    print(f"\n{text}\n\nledgers: {out / 'results'} (icr board, icr compare); this table: {out / 'eval.md'}")
    worst = [CODES[v.verdict] for *_, v in found if v.verdict in ("REGRESSED", "NOT COMPARABLE")]
    return max(worst, default=0)
