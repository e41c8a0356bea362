"""Rows of the board: one model x checkpoint x setting x prompt with a cell per dataset and length."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ledgers.inputs import thoughts
from ..ledgers.summary import tokens
from ..pairs.axes import MODEL, SETTING, comparable
from ..stats import Design, Effect
from ..text.names import SUITE, deployable, listed, order
from .cells import Cell, Column, design, short_column


@dataclass
class Row:
    """One line of the board; `heads` are the run.json files behind it (several where prompts differ by
    benchmark)."""

    model: str
    checkpoint: str
    setting: dict[str, Any]
    prompt: str
    heads: list[dict[str, Any]]
    cells: dict[Column, Cell] = field(default_factory=dict)
    variant: str = ""
    folder: str = ""  # below the results, of the first run
    _averages: dict[tuple[Column, ...], Cell] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Model with checkpoint."""
        return self.model + (f"@{self.checkpoint}" if self.checkpoint else "")

    @property
    def deployable(self) -> bool:
        """Whether somebody could serve this setting; reference lines are shown and never ranked."""
        return deployable(self.setting)

    @property
    def key(self) -> tuple[str, str, str]:
        """What two settings of the same model share: model, checkpoint, variant (the prompt may differ by
        setting)."""
        return self.model, self.checkpoint, self.variant

    @property
    def label(self) -> str:
        """All of the identity in one line."""
        rest = [self.setting["text"], self.prompt, self.variant]
        return f"{self.name} {', '.join(p for p in rest if p)}"

    @property
    def labels(self) -> tuple[str, str, str]:
        """The identity in the three columns of a table; the variant stands with the prompt."""
        return self.name, self.setting["text"], " ".join(p for p in (self.prompt, self.variant) if p)

    @property
    def runs(self) -> list[str]:
        """Fingerprints."""
        return [head["fingerprint"] for head in self.heads]

    def average(self, columns: Iterable[Column]) -> Cell:
        """Macro average over columns: datasets equal, lengths equal within one. Missing any cell: no
        value."""
        wanted = tuple(columns)
        if wanted not in self._averages:
            self._averages[wanted] = self._average(wanted)
        return self._averages[wanted]

    def gaps(self, columns: Iterable[Column]) -> str:
        """Why these columns have no average; empty when all are complete."""
        found: dict[str, list[str]] = {}
        for c in columns:
            cell = self.cells.get(c)
            if cell is None or not cell.usable:
                found.setdefault(cell.status if cell else "missing", []).append(short_column(c))
        parts = [f"{listed(n, 3)} {s}" for s, n in found.items()]
        return "no average: " + "; ".join(parts) if parts else ""

    def _average(self, columns: tuple[Column, ...]) -> Cell:
        if not columns:
            return Cell("missing", "nothing to average")
        if reason := self.gaps(columns):
            return Cell("missing", reason)
        if len(columns) == 1:
            return self.cells[columns[0]]
        parts = [scores for c in columns if (scores := self.cells[c].scores)]
        effect = design([p.at for p in parts], columns).score(np.concatenate([p.score for p in parts]))
        said = tuple(dict.fromkeys(f"{short_column(c)} {m}" for c in columns for m in self.cells[c].marks))
        said = (*said[:3], f"and {len(said) - 3} more") if len(said) > 3 else said
        kinds = {self.cells[c].status for c in columns}
        if kinds <= {"complete", "limited"}:
            return Cell("limited" if "limited" in kinds else "complete", effect=effect, marks=said)
        return Cell("partial", "average over partial cells", effect, counts_as_complete=True, marks=said)


@dataclass(frozen=True, eq=False)
class Paired:
    """Two rows on the same items, shape (items,): scores of both, and in `same` which answers are the same byte
    for byte."""

    design: Design
    new: np.ndarray
    base: np.ndarray
    same: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """New minus base of each item."""
        return self.new - self.base

    def effect(self) -> Effect:
        """The difference, as `icr compare` has it: what answers that are all the same cannot have changed has no
        error."""
        return self.design.effect(self.change, same=self.same)

    def within(self, mask: np.ndarray, design: Design) -> Paired:
        """Of some of the items, in a design of their own."""
        return Paired(design, self.new[mask], self.base[mask], self.same[mask])


def axes_between(new: Row, base: Row) -> tuple[str, ...]:
    """On which axes two rows of a board differ: settings of one model, models under one setting, or both. A model that
    thinks and one that does not are two."""
    if new.setting["text"] == base.setting["text"]:
        return (MODEL,)
    alike = new.name == base.name and thoughts(new.heads[0]) == thoughts(base.heads[0])
    return (SETTING,) if alike else (MODEL, SETTING)


def difference(
    new: Row,
    base: Row,
    columns: Iterable[Column],
    axis: str | None = None,
    allow: Collection[str] = (),
) -> Paired | str:
    """Both rows on the same items of these columns; or why they cannot be compared on this axis (None: on those
    on which the rows differ). `allow` waives named checks, as for `icr compare`."""
    columns, chosen = list(columns), (axis,) if axis else axes_between(new, base)
    for column in columns:
        a, b = new.cells.get(column), base.cells.get(column)
        for row, cell in ((new, a), (base, b)):
            if cell is None or not cell.usable:
                return f"{row.setting['text']}: {short_column(column)} " + (
                    cell.reason if cell else "missing"
                )
        assert a and b and a.scores and b.scores
        if not a.scores.same_items(b.scores):
            return f"{short_column(column)}: other items"
        if a.identity and b.identity and (refused := comparable(a.identity, b.identity, chosen, allow)):
            return f"{short_column(column)}: {refused[0].text}"
    ours = [p for c in columns if (p := new.cells[c].scores)]
    theirs = [p for c in columns if (p := base.cells[c].scores)]
    scores = [np.concatenate([p.score for p in side]) for side in (ours, theirs)]
    same = np.concatenate([a.same_answers(b) for a, b in zip(ours, theirs, strict=True)])
    return Paired(design([p.at for p in ours], columns), scores[0], scores[1], same)


def open_tasks(
    row: Row, columns: Iterable[Column], names: dict[Column, str]
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Task -> (what is the matter, run.json to complete) for partial, stale, failed and missing cells of a
    row.

    A column is missing only in benchmarks the row has begun; `names` gives the task behind each column.
    """
    begun = {c[0]: cell.run for c, cell in row.cells.items()}
    heads = {head["fingerprint"]: head for head in row.heads}
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for column in columns:
        cell = row.cells.get(column)
        if cell is None and column[0] in begun:
            found[names[column]] = ("missing", heads[begun[column[0]]])
        elif cell is not None and cell.status not in ("complete", "limited"):
            found[cell.task] = (f"{cell.status}: {cell.reason}", heads[cell.run])
    return found


def columns_of(found: Iterable[Row]) -> list[Column]:
    """Every column of these rows, benchmarks in the order of the paper, lengths ascending."""
    known = {c for row in found for c in row.cells}

    def rank(c: Column) -> tuple[Any, ...]:
        return order(c[0]), _dataset_rank(c[1]), c[1], tokens(c[2])

    return sorted(known, key=rank)


def lengths_of(columns: Iterable[Column]) -> list[str]:
    """The lengths of these columns, ascending: datasets of one benchmark may have others each."""
    return sorted({c[2] for c in columns if c[2]}, key=tokens)


def suite_of(columns: Sequence[Column]) -> list[Column]:
    """The benchmarks of the suite (`text.names.SUITES`) where there are any; synthetic and foreign tasks do
    not enter its average."""
    return [c for c in columns if c[0] in SUITE] or list(columns)


def _dataset_rank(dataset: str) -> int:
    paper = ("hotpotqa", "nq", "triviaqa", "popqa", "mc", "qa", "sum")
    return paper.index(dataset) if dataset in paper else len(paper)
