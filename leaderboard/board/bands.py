"""Lengths at which settings of one model are compared: nominal ones, or bins of the full prompt's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..ledgers.summary import tokens
from ..stats import Design, Effect, documents
from ..text.names import size
from .cells import Column, Places
from .rows import Paired, Row, difference, lengths_of

LEAST = 20  # clusters: a bin with fewer is not shown
EDGES = [1024 * 2**k for k in range(11)]  # of the bins, in tokens: 1k to 1M


@dataclass(eq=False)
class Band:
    """One length: `name` ("32k", or "32k to 64k" for a bin), `tokens` its upper end, its columns, and for a
    bin a mask of each column's items (shape: items of the column)."""

    name: str
    tokens: int
    columns: tuple[Column, ...]
    masks: tuple[np.ndarray, ...] | None = None
    places: tuple[Places, ...] = ()  # of a bin: the items of each column that its masks are of
    _designs: dict[int, tuple[Design, Design]] = field(default_factory=dict, repr=False)

    def paired(self, new: Row, base: Row) -> Paired | str:
        """Both rows on the same items of this length; or why they are not compared."""
        found = difference(new, base, self.columns)
        if isinstance(found, str) or self.masks is None:
            return found
        if not self._of_its_items(base):
            return "other items than full context"
        mask = np.concatenate(self.masks)
        return found.within(mask, self._within(base, found.design, mask))

    def score(self, row: Row) -> Effect | str:
        """The row's own score at this length; or why there is none."""
        if reason := row.gaps(self.columns):
            return reason.removeprefix("no average: ")
        if self.masks is None and (whole := row.average(self.columns).effect):
            return whole  # known already: other tables average the same cells
        found = self.paired(row, row)
        return found if isinstance(found, str) else found.design.score(found.new)

    def _of_its_items(self, row: Row) -> bool:
        """Whether the masks are of this row's items: they are of those of full context, which may be others where runs
        are partial."""
        cells = zip((row.cells[c].scores for c in self.columns), self.places, strict=True)
        return all(s is not None and (s.at is at or np.array_equal(s.at.item, at.item)) for s, at in cells)

    def _within(self, row: Row, whole: Design, mask: np.ndarray) -> Design:
        """The design of a bin's items, which count equally; kept as long as the whole one is."""
        if id(whole) not in self._designs:
            parts = [row.cells[c].scores for c in self.columns]
            shared = documents([p.at.shared for p in parts if p], [len(p.score) for p in parts if p])
            made = Design(whole.cluster[mask], None, None, None if shared is None else shared[mask])
            self._designs[id(whole)] = whole, made
        return self._designs[id(whole)][1]


def bands(full: Row, columns: Sequence[Column]) -> tuple[list[Band], list[str]]:
    """The lengths of one benchmark's columns, ascending, as the full-context row has them; and what is left
    out with its reason."""
    if nominal := lengths_of(columns):
        return [Band(n, tokens(n), tuple(c for c in columns if c[2] == n)) for n in nominal], []
    usable = tuple(c for c in columns if (cell := full.cells.get(c)) and cell.usable and cell.scores)
    if not usable:
        return [], []
    counted = [full.cells[c].scores for c in usable]
    prompts = [p.prompt if p is not None and p.prompt is not None else np.empty(0) for p in counted]
    if any(not len(p) or np.isnan(p).any() for p in prompts):
        return [Band("all", 0, usable)], ["lengths: the full-context run counted no prompt tokens"]
    found, left = [], []
    bins = [np.searchsorted(EDGES, p, side="left") for p in prompts]
    for k in sorted({int(b) for part in bins for b in np.unique(part)}):
        masks = tuple(b == k for b in bins)
        places = tuple(p.at for p in counted if p is not None)
        band = Band(_name(k), EDGES[min(k, len(EDGES) - 1)], usable, masks, places)
        clusters = _clusters(band, full)
        if clusters < LEAST:
            left.append(f"{band.name} has {clusters} questions or documents, {LEAST} are needed")
        else:
            found.append(band)
    return found, left


def _clusters(band: Band, full: Row) -> int:
    paired = band.paired(full, full)
    return 0 if isinstance(paired, str) else paired.design.clusters


def _name(k: int) -> str:
    if k == 0:
        return f"to {size(EDGES[0])}"
    return f"over {size(EDGES[-1])}" if k == len(EDGES) else f"{size(EDGES[k - 1])} to {size(EDGES[k])}"
