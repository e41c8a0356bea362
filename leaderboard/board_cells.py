"""Cells of the board: one task of one run, with its mean, interval and the items behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .load import TaskItems
from .stats import Design, Effect

Column = tuple[str, str, str]  # benchmark, dataset, length ("" where a benchmark has none)


@dataclass(frozen=True)
class Scores:
    """Items of one cell that have a score, sorted by item; shape (items,). `target` digests the gold answers."""

    item: np.ndarray
    score: np.ndarray
    cluster: np.ndarray
    depth: np.ndarray
    target: int
    by_item: bool  # no cluster was logged: items are taken as independent

    def same_items(self, other: Scores) -> bool:
        """Whether both hold the same items with the same gold answers."""
        return self.target == other.target and np.array_equal(self.item, other.item)


@dataclass
class Cell:
    """One task of one run. `status`: complete, partial, stale, error or missing; `reason` where not complete."""

    status: str
    reason: str = ""
    effect: Effect | None = None
    scores: Scores | None = None
    n_expected: int | None = None
    task: str = ""
    run: str = ""
    version: tuple[Any, ...] = ()
    counts_as_complete: bool = False  # partial, but the user said to rank it

    @property
    def usable(self) -> bool:
        """May be averaged and ranked."""
        return (self.status == "complete" or self.counts_as_complete) and self.effect is not None


def short_column(column: Column) -> str:
    """`nq 4k`, `mc`, `longbench_v2`: dataset (or benchmark where that says more) and length."""
    benchmark, dataset, length = column
    name = benchmark if dataset in ("all", "", "rag") else dataset
    return f"{name} {length}".strip()


class Codes:
    """Integers for names, the same over all runs."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}

    def __call__(self, values: Iterable[Any]) -> np.ndarray:
        known = self._known
        return np.fromiter((known.setdefault(v, len(known)) for v in values), np.int64)


def column_of(task: TaskItems) -> Column:
    """Where a task stands on the board."""
    return task.benchmark, task.sheet.get("dataset") or task.name, task.length


def cell(task: TaskItems, run: str, codes: Codes) -> Cell:
    """One task of one run as a cell."""
    sheet = task.sheet
    # N of a task version "N-X": the letter is interface only
    version = (
        str(sheet.get("task_version")).partition("-")[0],
        sheet.get("metric"),
        sheet.get("metric_version"),
        sheet.get("data_revision"),
    )
    made = Cell("complete", n_expected=sheet.get("n_expected"), task=task.name, run=run, version=version)
    named = sheet.get("metric") or next(iter(task.score), None)
    if not len(task) or named not in task.score:
        made.status = "error"
        made.reason = sheet.get("reason") or (f"no item has the metric {named}" if len(task) else "no items")
        return made
    values = task.score[named]
    have = ~np.isnan(values)
    if ((values[have] < 0) | (values[have] > 1)).any():
        made.status, made.reason = "error", f"{named} is not a score between 0 and 1"
        return made
    made.scores = _scores(task, values, have, codes)
    made.effect = Design(made.scores.cluster).score(made.scores.score)
    made.reason = sheet.get("reason") or ""
    if not task.complete:
        made.status = "partial"
        made.reason = made.reason or f"{int(have.sum())}/{made.n_expected or '?'} items"
    return made


def _scores(task: TaskItems, values: np.ndarray, have: np.ndarray, codes: Codes) -> Scores:
    items = codes(zip(task.item.tolist(), task.occ.tolist(), strict=True))[have]
    order = np.argsort(items, kind="stable")
    by_item = not any(task.cluster.tolist())
    named = zip(task.item.tolist(), task.occ.tolist(), strict=True) if by_item else task.cluster.tolist()
    clusters = codes((task.name if by_item else task.benchmark, c) for c in named)[have]
    depth = task.keys.get("depth")
    depths = np.full(len(items), np.nan) if depth is None else np.array([_depth(d) for d in depth[have]])
    target = hash(task.target_hash[have][order].tobytes())
    return Scores(items[order], values[have][order], clusters[order], depths[order], target, by_item)


def _depth(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
