"""The stages in order. Each runs when its options, its inputs or an earlier stage changed, and is skipped
otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError, unknown
from icr_tasks.metrics.judge.secrets import redact_url
from icr_tasks.storage import fingerprint

from . import corpus, dedupe, judge, pack, read, refine, report, retrieve
from .config import STAGE_OPTIONS, Config
from .store import Manifest, Record, arrow, key_of

VERSION = 3  # raised when a stage's output changes for the same options


@dataclass(frozen=True)
class Stage:
    """`after` names the stages it reads; `outputs` are parquet files in the data folder."""

    run: Callable[[Config, Path], dict[str, Any]]
    outputs: tuple[str, ...]
    after: tuple[str, ...] = ()


STAGES: dict[str, Stage] = {
    "read": Stage(read.run, (read.OUTPUT,)),
    "corpus": Stage(corpus.run, (corpus.OUTPUT,)),
    "retrieve": Stage(retrieve.run, (retrieve.OUTPUT,), ("read", "corpus")),
    "dedupe": Stage(dedupe.run, (dedupe.OUTPUT,), ("retrieve",)),
    "refine": Stage(refine.run, (refine.OUTPUT,), ("dedupe",)),
    "judge": Stage(judge.run, (judge.OUTPUT,), ("refine",)),
    "pack": Stage(pack.run, (pack.OUTPUT,), ("judge",)),
    "split": Stage(pack.split_rows, pack.OUTPUTS, ("pack",)),
}
_INPUTS = {
    "read": ("hotpotqa", "twowiki", "musique", "records", "exclude"),
    "corpus": ("corpus", "musique", "records"),
}


def _hashes(cfg: Config, stage: str) -> dict[str, str]:
    """Input file -> sha256, for stages that read the user's files."""
    found: dict[str, str] = {}
    for name in _INPUTS.get(stage, ()):
        given = getattr(cfg, name)
        many = [Path(part.strip()) for part in given.split(",") if part.strip()]
        for path in corpus.files(given) if name == "corpus" and given else many:
            if path.is_file():  # a missing file is the stage's own error
                found[str(path)] = fingerprint(path)
    return found


def plan(cfg: Config) -> dict[str, tuple[str, dict[str, Any], dict[str, str]]]:
    """stage -> (key, options, input hashes). Paths are not part of a key, contents are."""
    out: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {}
    for name, stage in STAGES.items():
        options = {option: getattr(cfg, option) for option in STAGE_OPTIONS[name]}
        if options.get("judge_base_url"):
            options["judge_base_url"] = redact_url(options["judge_base_url"])
        inputs = _hashes(cfg, name)
        named = {k: bool(v) if k in _INPUTS.get(name, ()) else v for k, v in options.items()}
        before = [out[other][0] for other in stage.after]
        out[name] = (key_of([VERSION, name, named, list(inputs.values()), before]), options, inputs)
    return out


def preflight(cfg: Config, until: str | None) -> None:
    """What would fail only after hours fails now: the judge's options and client, the tokenizer."""
    stages = list(STAGES)
    wanted = stages[: stages.index(until) + 1] if until else stages
    if "judge" in wanted and cfg.judge_base_url:
        judge.asker(cfg, None)
    if "judge" in wanted and not cfg.judge_base_url and not cfg.unjudged:
        raise IcrError(
            f"mode {cfg.mode!r} has a judge decide about every candidate; give --judge-base-url and "
            "--judge-model, or say "
            "what becomes of them without one: --unjudged negative, drop or gold"
        )
    if "pack" in wanted:
        pack.tokens_of(cfg.tokenizer)


def run(cfg: Config, folder: Path, until: str | None = None) -> Iterator[tuple[str, Record, bool]]:
    """Yield (stage, manifest entry, ran now) as stages finish. Raises IcrError for bad input, before later
    stages run."""
    if until is not None and until not in STAGES:
        raise unknown("stage", until, STAGES)
    arrow()
    planned = plan(cfg)
    preflight(cfg, until)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest.load(folder)
    for name, (key, options, inputs) in planned.items():
        if manifest.fresh(name, key):
            yield name, manifest.stages[name], False
        else:
            begun = time.perf_counter()
            counts = STAGES[name].run(cfg, folder)
            files = {file: _rows(folder / file) for file in STAGES[name].outputs}
            seconds = round(time.perf_counter() - begun, 2)
            entry = manifest.record(
                name, key, files, options=options, inputs=inputs, counts=counts, seconds=seconds
            )
            yield name, entry, True
        if name == until and name != "split":
            return
    report.write_report(folder, manifest)


def _rows(path: Path) -> int:
    return arrow().parquet.ParquetFile(path).metadata.num_rows
