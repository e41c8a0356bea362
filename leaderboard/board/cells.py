"""Cells of the board: one task of one run, with its mean, interval and the items behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ledgers.load import TaskItems
from ..pairs.axes import Identity, identity, marks
from ..stats import Design, Effect, documents, objects
from .costs import per_item

Bounds = tuple[float, float]  # of the gold passage's position, 0 to 1
Column = tuple[str, str, str]  # benchmark, dataset, length ("" where a benchmark has none)


@dataclass(frozen=True, eq=False)
class Places:
    """Who the items of a cell are, sorted by item; shape (items,). Runs with the same items share one
    object."""

    item: np.ndarray
    cluster: np.ndarray
    depth: np.ndarray
    shared: np.ndarray | None = None  # documents of each item, where they are named


@dataclass(frozen=True)
class Scores:
    """Scores of one cell in the order of `at.item`; shape (items,). `target` digests the gold answers."""

    at: Places
    score: np.ndarray
    target: int
    prompt: np.ndarray | None = None  # tokens of each item's prompt, NaN where nobody counted
    answer: np.ndarray | None = None  # hash of each item's answer, 0 where the ledger has none
    evidence: np.ndarray | None = None  # share of the evidence in each prompt, NaN where not known

    def same_items(self, other: Scores) -> bool:
        """Whether both hold the same items with the same gold answers."""
        same = self.at is other.at or np.array_equal(self.at.item, other.at.item)
        return same and self.target == other.target

    def same_answers(self, other: Scores) -> np.ndarray:
        """Mask of the items that both answered alike, byte for byte."""
        if self.answer is None or other.answer is None:
            return np.zeros(len(self.score), bool)
        return (self.answer == other.answer) & (self.answer > 0)


@dataclass
class Cell:
    """One task of one run. `status`: complete, limited, partial, stale, error or missing; `reason` where not
    complete.

    `limited`: no run has all items of the task, so that all are compared on what they have (`--limit`).
    """

    status: str
    reason: str = ""
    effect: Effect | None = None
    scores: Scores | None = None
    n_expected: int | None = None
    task: str = ""
    run: str = ""
    version: tuple[Any, ...] = ()
    counts_as_complete: bool = False  # partial, but the user said to rank it
    identity: Identity | None = None
    marks: tuple[str, ...] = ()  # unofficial data, cut, unfinished: said in the cell on every axis
    cost: dict[str, float] = field(default_factory=dict)  # means an item, by name (`costs.per_item`)
    limited: str = ""  # "48 of 100 items", where that is true of every row of the column

    @property
    def usable(self) -> bool:
        """May be averaged and ranked."""
        known = self.status in ("complete", "limited") or self.counts_as_complete
        return known and self.effect is not None


def short_column(column: Column) -> str:
    """`nq 4k`, `mc`, `longbench_v2`: dataset (or benchmark where that says more) and length."""
    benchmark, dataset, length = column
    name = benchmark if dataset in ("all", "", "rag") else dataset
    return f"{name} {length}".strip()


_DESIGNS: dict[Any, tuple[list[Places], Design]] = {}


def design(parts: Sequence[Places], columns: Iterable[Column], depth: Bounds | None = None) -> Design:
    """The weights and clusters of several cells (of their items in one bin of depth); made once for all rows that
    share them."""
    kept, columns = list(parts), tuple(columns)
    key = (*map(id, kept), columns, depth)
    if key not in _DESIGNS:
        if len(_DESIGNS) > 4096:
            _DESIGNS.clear()
        known: dict[tuple[str, str], int] = {}
        dataset = np.repeat(
            [known.setdefault(c[:2], len(known)) for c in columns], [len(p.item) for p in kept]
        )
        cell = np.repeat(np.arange(len(kept)), [len(p.item) for p in kept])
        cluster = np.concatenate([p.cluster for p in kept])
        shared = documents([p.shared for p in kept], [len(p.item) for p in kept])
        if depth is not None:
            mask = np.concatenate([in_bin(p, depth) for p in kept])
            dataset, cell, cluster = dataset[mask], cell[mask], cluster[mask]
            shared = None if shared is None else shared[mask]
        _DESIGNS[key] = (
            kept,
            Design(cluster, cell, dataset, shared),
        )  # holding the parts keeps their ids unique
    return _DESIGNS[key][1]


def in_bin(places: Places, bounds: Bounds) -> np.ndarray:
    """Mask of the items whose gold passage stands within these bounds (the upper one excluded)."""
    return (places.depth >= bounds[0]) & (places.depth < bounds[1])


class Codes:
    """Integers for names, the same over all runs; and the places of a task, one object while the items stay
    the same."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}
        self._last: dict[str, tuple[list[Any], Places, np.ndarray]] = {}
        self._read: dict[str, tuple[list[Any], tuple[Places, np.ndarray]]] = {}

    def __call__(self, values: Iterable[Any]) -> np.ndarray:
        known = self._known
        return np.fromiter((known.setdefault(v, len(known)) for v in values), np.int64)

    def places(self, task: TaskItems) -> tuple[Places, np.ndarray]:
        """Places of all items of a task, and the order that sorts its rows by item."""
        depth = task.keys.get("depth")
        columns = [task.item, task.occ, task.cluster, depth, task.keys.get("documents")]
        read = self._read.get(task.name)  # as often as not the very columns of the run before
        if read is None or any(a is not b for a, b in zip(read[0], columns, strict=True)):
            read = self._read[task.name] = columns, self._places(task, depth)
        return read[1]

    def _places(self, task: TaskItems, depth: np.ndarray | None) -> tuple[Places, np.ndarray]:
        key = [
            task.item.tolist(),
            task.occ.tolist(),
            task.cluster.tolist(),
            None if depth is None else depth.tolist(),
            task.shared,
        ]
        last = self._last.get(task.name)
        if last is None or last[0] != key:
            items = self(zip(key[0], key[1], strict=True))
            order = np.argsort(items, kind="stable")
            # an item without a cluster in the ledger is independent of all others
            named = (
                (task.benchmark, c) if c else (task.name, i)
                for c, i in zip(key[2], items.tolist(), strict=True)
            )
            depths = np.array([_depth(d) for d in key[3] or [None] * len(items)])
            last = self._last[task.name] = (
                key,
                Places(
                    items[order],
                    self(named)[order],
                    depths[order],
                    None if key[4] is None else objects(key[4])[order],
                ),
                order,
            )
        return last[1], last[2]


def cell(task: TaskItems, run: str, codes: Codes, head: dict[str, Any] | None = None) -> Cell:
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
    if not have.any():
        made.status, made.reason = "error", sheet.get("reason") or f"no item has the metric {named}"
        return made
    if ((values[have] < 0) | (values[have] > 1)).any():
        made.status, made.reason = "error", f"{named} is not a score between 0 and 1"
        return made
    if task.backwards(named):
        made.status, made.reason = "error", f"{named} is no score, a lower value is the better one"
        return made
    made.scores = _scores(task, values, codes)
    made.identity = None if head is None else identity(task, head, codes.places(task)[1])
    made.marks = marks(sheet)
    if made.n_expected and int(have.sum()) > made.n_expected:
        made.marks += (f"{int(have.sum())} items, {made.n_expected} expected",)
    made.cost = per_item(task)
    made.effect = design([made.scores.at], [task.column]).score(made.scores.score)
    made.reason = sheet.get("reason") or ""
    if not task.complete:
        made.status = "partial"
        made.reason = made.reason or f"{int(have.sum())}/{made.n_expected or '?'} items"
    return made


def _scores(task: TaskItems, values: np.ndarray, codes: Codes) -> Scores:
    at, order = codes.places(task)
    values, prompt, answer = values[order], task.n_prompt_tokens[order], task.resp_hash[order]
    have = ~np.isnan(values)
    evidence = None if task.evidence is None else task.evidence[order][have]
    target = hash(task.target_hash[order][have].tobytes())
    if not have.all():
        shared = None if at.shared is None else at.shared[have]
        at, values = Places(at.item[have], at.cluster[have], at.depth[have], shared), values[have]
        prompt, answer = prompt[have], answer[have]
    return Scores(at, values, target, prompt, answer, evidence)


def _depth(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
