"""`icr train data`: raw QA data to training rows, in stages that can be stopped, looked at and continued.

icr train data --hotpotqa hotpot_train_v1.1.json --2wiki train.json --musique musique_ans_v1.0_train.jsonl --corpus wikipedia.parquet \\
    --embedder Qwen/Qwen3-Embedding-4B --judge-base-url http://localhost:8001/v1 --judge-model NAME -o data/
icr train data --records medical.jsonl,legal.jsonl -o data/     # any QA set: question, answers, evidence, domain, documents
icr train data --synth 2000 --length 512,1k -o data/
icr train data --show refine -o data/
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from icr_tasks.benchmarks.synth.world import DOMAINS
from icr_tasks.checked import read_yaml
from icr_tasks.errors import IcrError, unknown

from . import pipeline, report, synth
from .config import MODES, STAGE_OPTIONS, Config, config
from .store import Manifest, alone, read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="icr train data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="data folder")
    parser.add_argument("--config", type=Path, help="YAML file with the options below")
    parser.add_argument("--until", help=f"stop after this stage: {', '.join(pipeline.STAGES)}")
    parser.add_argument(
        "--show", metavar="STAGE", help="print the first rows that a stage wrote, and its counts"
    )
    parser.add_argument("--rows", type=int, default=2, help="how many rows --show prints")
    parser.add_argument(
        "--mode",
        choices=MODES,
        default=argparse.SUPPRESS,
        help=f"{Config.__dataclass_fields__['mode'].metadata['help']} (default: default)",
    )
    made = parser.add_argument_group("synthetic rows (nothing to download)")
    made.add_argument(
        "--synth", type=int, metavar="N", help="N rows of the synthetic benchmark's training split"
    )
    made.add_argument("--length", default="512", help="nominal lengths to mix, comma-separated: 512,1k,4k")
    made.add_argument("--domain", default="", help="comma-separated: biography,business,arts,geography")
    made.add_argument(
        "--family", default="rag", help="comma-separated: rag,latent,order (docs/benchmarks.md)"
    )
    made.add_argument(
        "--kinds",
        default="",
        help="comma-separated: single,hop,comparison,yesno; latent: class,link,chain; order: ith,latest,count",
    )
    made.add_argument("--passages", type=int, help="passages a row, instead of a length")
    group = {option: stage for stage, options in reversed(STAGE_OPTIONS.items()) for option in options}
    groups: dict[str, Any] = {}
    for field in fields(Config):
        if field.name == "mode":
            continue
        stage = group.get(field.name, "judge")
        groups.setdefault(stage, parser.add_argument_group(f"stage {stage}"))
        name = "--" + field.name.replace("twowiki", "2wiki").replace("_", "-")
        kind = argparse.BooleanOptionalAction if isinstance(field.default, bool) else None
        extra: dict[str, Any] = {"action": kind} if kind else {"type": type(field.default)}
        groups[stage].add_argument(
            name,
            dest=field.name,
            default=argparse.SUPPRESS,
            help=f"{field.metadata['help']} (default {field.default!r})",
            **extra,
        )
    return parser


def main(argv: list[str]) -> int:
    """Run the stages, or show one; returns 0."""
    args = _parser().parse_args(argv)
    if args.show:
        return _show(args.output, args.show, args.rows)
    given = _file(args.config) if args.config else {}
    known = {f.name for f in fields(Config)}
    given |= {k: v for k, v in vars(args).items() if k in known}
    cfg = config(given)
    with alone(args.output):
        return _synth(args, cfg) if args.synth is not None else _stages(args, cfg)


def _stages(args: argparse.Namespace, cfg: Config) -> int:
    for name, entry, ran in pipeline.run(cfg, args.output, args.until):
        counts = ", ".join(f"{k} {v:,}" for k, v in entry["counts"].items())
        spent = f"{entry['seconds']:8.1f} s" if ran else " as before"
        print(f"{name:<9} {spent}  {counts}", flush=True)
    if args.until in (None, "split"):
        print(
            f"data {Manifest.load(args.output).hash()} in {args.output}; statistics: "
            f"{args.output / 'report.md'}"
        )
        look = json.loads((args.output / "report.json").read_text()).get("warnings", [])
        if look:
            print(f"look at this ({len(look)}):\n" + "\n".join(f"  - {text}" for text in look), flush=True)
    return 0


def _file(path: Path) -> dict[str, Any]:
    try:
        found = read_yaml(path.read_text(), f"config {path}")
    except OSError as error:
        raise IcrError(f"config {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise IcrError(f"config {path} must hold options as `name: value` lines")
    return found


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _synth(args: argparse.Namespace, cfg: Config) -> int:
    domains: list[str | None] = [*_list(args.domain)] or [None]
    for domain in domains:
        if domain is not None and domain not in DOMAINS:
            raise unknown("domain", domain, DOMAINS)
    options: dict[str, Any] = {
        "lengths": _list(args.length),
        "domains": domains,
        "kinds": _list(args.kinds),
        "passages": args.passages,
    }
    if (families := _list(args.family)) != ["rag"]:
        options["families"] = families
    entry = synth.run(args.output, n=args.synth, dev=cfg.dev, seed=cfg.seed, **options)
    manifest = Manifest.load(args.output)
    report.write_report(args.output, manifest)
    print(f"synth: {entry['counts']} -> {args.output} (data {manifest.hash()})")
    return 0


def _show(folder: Path, stage: str, rows: int) -> int:
    manifest = Manifest.load(folder)
    if stage not in manifest.stages:
        raise (
            unknown("finished stage", stage, manifest.stages)
            if manifest.stages
            else IcrError(f"no data in {folder}")
        )
    entry = manifest.stages[stage]
    print(f"{stage}: {entry['counts']}")
    for file, facts in entry["files"].items():
        print(f"\n{file}: {facts['rows']:,} rows, {facts['bytes']:,} bytes, sha256 {facts['sha256'][:16]}")
        for number, row in enumerate(read(folder / file)):
            if number == rows:
                break
            print("\n".join(f"  {k}: {_short(v)}" for k, v in row.items()), end="\n\n")
    return 0


def _short(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], str):
        shown = "; ".join(v[:80] for v in value[:3])
        return f"[{len(value)}] {shown}"
    text = str(value)
    return text if len(text) <= 240 else text[:240] + " ..."
