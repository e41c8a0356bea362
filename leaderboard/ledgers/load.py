"""Ledgers as numpy columns: `load("results") -> list[Run]`, the form every table, comparison and plot starts
from.

Strings are interned and hashes are 64-bit integers, so 200 runs of the same 5000 items share one copy of the
names.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
import orjson

from icr_tasks.errors import IcrError, unknown
from icr_tasks.schema import read_head as read_head

from ..text.names import learn
from . import ledger
from .columns import Kept as Kept
from .columns import columns
from .inputs import differing


@dataclass(frozen=True)
class Task:
    """One task of one run; `sheet` is run.json's entry of it."""

    name: str
    sheet: dict[str, Any]

    @property
    def benchmark(self) -> str:
        """Benchmark; a stock lm-eval task is its own benchmark."""
        return self.sheet.get("benchmark") or self.name

    @property
    def dataset(self) -> str:
        """Benchmark and dataset, unique over the board: "helmet_rag/nq"."""
        return f"{self.benchmark}/{self.sheet.get('dataset') or self.name}"

    @property
    def length(self) -> str:
        """Nominal length such as "4k", or ""."""
        return self.sheet.get("length") or ""

    @property
    def column(self) -> tuple[str, str, str]:
        """Where a task stands in a table: benchmark, dataset, length ("" where the benchmark has none)."""
        return self.benchmark, self.sheet.get("dataset") or self.name, self.length

    @property
    def complete(self) -> bool:
        """All expected items scored."""
        return self.sheet.get("status") == "complete"

    def backwards(self, metric: str | None) -> bool:
        """Whether a lower value of this metric is the better one, as lm-eval says of it: then it is no score, whose
        losses a comparison counts and whose best a board marks."""
        return metric in self.sheet.get("lower_is_better", ())


@dataclass(frozen=True)
class TaskItems(Task):
    """One task of one run as columns, in ledger order; every array has shape (items,).

    `score[metric]` is float64 with NaN where an item has no such score (not sent, or an unparsed verdict).
    `item`, `cluster` and each `keys[name]` are object arrays (str; key values as written, None where absent).
    Hashes are uint64, 0 where absent. Token counts are float64, NaN where unknown. `errors` maps row numbers
    to reasons.
    """

    item: np.ndarray
    occ: np.ndarray
    cluster: np.ndarray
    score: dict[str, np.ndarray]
    keys: dict[str, np.ndarray]
    n_prompt_tokens: np.ndarray
    n_out_tokens: np.ndarray
    truncated: np.ndarray
    resp_hash: np.ndarray
    prompt_hash: np.ndarray
    target_hash: np.ndarray
    errors: dict[int, str]
    evidence: np.ndarray | None = None  # share of the known evidence in the prompt; None: no item tells

    def __len__(self) -> int:
        return len(self.item)

    @property
    def shared(self) -> list[Any] | None:
        """Documents of each item, shape (items,); None where the ledger names none."""
        named = self.keys.get("documents")
        return None if named is None or not any(named) else list(named)

    @property
    def metric(self) -> str:
        """Headline metric; the first one logged where the sheet names none. Raises IcrError without any
        score."""
        named = self.sheet.get("metric") or next(iter(self.score), None)
        if named is None:
            raise IcrError(f"{self.name}: no item has a score; the run failed as a whole, see its errors")
        return named

    def headline(self) -> np.ndarray:
        """Scores of the headline metric. Raises IcrError when no item has it: there is no fallback metric."""
        if self.metric not in self.score:
            raise IcrError(
                f"{self.name}: no item has the metric {self.metric!r}, only {', '.join(self.score) or 'none'}"
            )
        return self.score[self.metric]


@dataclass(frozen=True)
class Run:
    """One run: its folder, run.json as `head`, and its tasks by name."""

    folder: Path
    head: dict[str, Any]
    tasks: dict[str, TaskItems]

    @property
    def fingerprint(self) -> str:
        """12 hex digits over everything that changes answers."""
        return self.head["fingerprint"]

    @property
    def model(self) -> str:
        """Model id as written in run.json."""
        return str(self.head["model"]["id"])

    @property
    def setting(self) -> str:
        """Setting string such as "kv:snapkv@0.5"."""
        return str(self.head["setting"]["text"])

    @property
    def prompt(self) -> str:
        """Prompt id, or "" for stock tasks."""
        return str(self.head.get("prompt") or "")

    @property
    def label(self) -> str:
        """Model, setting, prompt and fingerprint for people."""
        prompt = f", {self.prompt}" if self.prompt else ""
        return f"{self.model} ({self.setting}{prompt})@{self.fingerprint[:6]}"


def load(
    root: str | Path, *, bad: list[str] | None = None, keep: Callable[[dict[str, Any]], bool] | None = None
) -> list[Run]:
    """Every whole run at or below `root`, sorted by path; `keep(run_json)` selects before items are read.

    Broken runs raise IcrError naming file and line; with a list `bad` they are left out and their messages
    added to it. Raises IcrError where there is no run at all.
    """
    root = Path(root)
    paths = ledger.run_files(root)
    if not paths:
        what = "is not a folder" if not root.is_dir() else "holds no run.json"
        raise IcrError(f"{root} {what}; write ledgers there with `icr collect OUT -o {root}`")
    found = []
    for path in paths:
        try:
            head = read_head(path)
            if keep is None or keep(head):
                found.append(load_run(path.parent, head))
        except IcrError as error:
            if bad is None:
                raise
            bad.append(str(error))
    return found


def load_run(
    folder: Path, head: dict[str, Any] | None = None, *, shown: bool = False, kept: Kept | None = None
) -> Run:
    """One run from its folder; `shown`: only the columns a board needs (headline score, depth), equal ones
    shared with the run before by `kept`. Raises IcrError with file and line."""
    head = head or read_head(folder / "run.json")
    sheets, by_task = head["tasks"], rows_by_task(folder, head)
    for name, sheet in sheets.items():
        if fault := ledger.length_fault(name, sheet):
            raise IcrError(f"{folder / 'run.json'}: {fault}")
        there, told = len(by_task[name]), [sheet.get("n_scored"), sheet.get("n_failed")]
        if None not in told and there != sum(told):
            raise IcrError(
                f"{folder / ledger.ITEMS}: {name} has {there} items, run.json counts {sum(told)}; collect the run again"
            )
        learn(sheet)
    try:
        tasks = {
            name: TaskItems(
                intern(name),
                sheets[name],
                **columns(rows, (sheets[name].get("metric") or "") if shown else None, kept, name),
            )
            for name, rows in by_task.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IcrError(
            f"{folder / ledger.ITEMS}: not a ledger ({type(error).__name__}: {error}); `icr check {folder}` "
            "names the line"
        ) from error
    return Run(folder, head, tasks)


def rows_by_task(folder: Path, head: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Ledger rows of one run, for each task of run.json. Raises IcrError with file and line."""
    path = folder / ledger.ITEMS
    by_task: dict[str, list[dict[str, Any]]] = {name: [] for name in head["tasks"]}
    try:
        with ledger.no_cycles():
            lines = gzip.decompress(path.read_bytes()).rstrip(b"\n").replace(b"\n", b",")
            for row in orjson.loads(b"[%b]" % lines):
                by_task[row["task"]].append(row)
        return by_task
    except (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error):
        by_task = {
            name: [] for name in head["tasks"]
        }  # again line by line, which is slower and names the line
    for number, row in ledger.rows(path):
        try:
            by_task[row["task"]].append(row)
        except (KeyError, TypeError) as error:
            raise IcrError(
                f"{path}:{number}: no task of run.json ({error}); collect the run again"
            ) from error
    return by_task


TOLD = ("model", "model_args.pretrained", "setting")  # inputs that a run's model and setting say


def find(results: str | Path, spec: str) -> Run:
    """A run by folder, by a fingerprint's first digits (4 or more), or by a folder that holds exactly one
    run.

    Raises IcrError that lists the runs when none or several match; exit code 4 for a folder without any run.
    """
    path = Path(spec)
    if (path / "run.json").is_file():
        return load_run(path)
    root = path if path.is_dir() else Path(results)
    heads = [(p, read_head(p)) for p in ledger.run_files(root)]
    hits = (
        heads
        if path.is_dir()
        else [h for h in heads if len(spec) >= 4 and h[1]["fingerprint"].startswith(spec)]
    )
    if len(hits) == 1:
        return load_run(hits[0][0].parent, hits[0][1])
    if not hits and path.is_dir():
        raise IcrError(f"no run below {path}; write one there with `icr collect OUT -o {path}`", exit_code=4)
    if not hits and not heads:
        raise IcrError(
            f"{spec} is no folder, and there is no run below {results} to look it up; name a folder or "
            "--results"
        )
    if not hits:
        raise IcrError(
            f"{unknown('run', spec, [h['fingerprint'] for _, h in heads])}; no folder is called so"
        )
    listed = [
        f"{h['fingerprint']} {h['model']['id']} {h['setting']['text']}" + (f" ({what})" if what else "")
        for (_, h), what in zip(hits, differing([h for _, h in hits], told=TOLD), strict=True)
    ]
    raise IcrError(f"{spec} is {len(hits)} runs, name one by its fingerprint: {'; '.join(listed[:12])}")
