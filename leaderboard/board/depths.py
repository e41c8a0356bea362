"""Bins of the gold passage's position, the same for every dataset: no bin holds other datasets than the next.

HotpotQA's official files have 19 to 67 positions a length, others six neat ones. A position that one dataset
has alone would show that dataset's level as an effect of depth; so datasets and lengths that lack items in
one of the bins are left out of all of them, and are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..stats import Effect
from .cells import Bounds, Column, design, in_bin, short_column
from .rows import Row

LEAST = 5  # clusters of a dataset at a length in each bin
# Edges that split no usual set of positions (0, 0.5, 1; fifths; quarters; thirds): finest first.
_EDGES: tuple[tuple[float, ...], ...] = (
    (0.0, 0.19, 0.39, 0.61, 0.81, 1.0),
    (0.0, 0.3, 0.7, 1.0),
    (0.0, 0.5, 1.0),
)


@dataclass
class DepthBins:
    """Bins of one benchmark: `bounds` (low, high), with the high end in the last bin only; names; the columns
    that have items in all of them, and why others are left out."""

    bounds: list[Bounds]
    names: list[str]
    columns: list[Column]
    left_out: list[str] = field(default_factory=list)

    def score(self, row: Row, k: int) -> Effect | str:
        """Macro average of the items in bin k over the same datasets and lengths as in every bin; or why
        there is none."""
        if reason := row.gaps(self.columns):
            return reason
        parts = [s for c in self.columns if (s := row.cells[c].scores)]
        masks = [in_bin(p.at, self.bounds[k]) for p in parts]
        if len(parts) < len(self.columns) or not all(m.any() for m in masks):
            return "no item at this depth"
        values = np.concatenate([p.score[m] for p, m in zip(parts, masks, strict=True)])
        return design([p.at for p in parts], self.columns, self.bounds[k]).score(values)


def depth_bins(rows: Sequence[Row], columns: Sequence[Column]) -> DepthBins | str:
    """The binning that keeps most of these columns, of those the finest; or why there is none."""
    places = {c: _places(rows, c) for c in columns}
    known = {c: p for c, p in places.items() if p is not None}
    if not known:
        return "no item says where its gold passage stands"
    found = [_binned(known, edges) for edges in _EDGES]
    best = max(found, key=lambda b: (len(b.columns) if len(b.bounds) > 1 else 0, len(b.bounds)))
    if len(best.bounds) < 2 or not best.columns:
        return f"no dataset has {LEAST} questions at two positions of the gold passage"
    best.left_out += [f"{short_column(c)} has no positions" for c in columns if c not in known]
    return best


def _places(rows: Sequence[Row], column: Column) -> tuple[np.ndarray, np.ndarray] | None:
    """Depth and cluster of the items of a column that have a depth, of the first row that has it."""
    for row in rows:
        cell = row.cells.get(column)
        if cell is not None and cell.usable and cell.scores is not None:
            at = cell.scores.at
            have = ~np.isnan(at.depth)
            return (at.depth[have], at.cluster[have]) if have.any() else None
    return None


def _binned(known: dict[Column, tuple[np.ndarray, np.ndarray]], edges: tuple[float, ...]) -> DepthBins:
    whole = len(edges) - 2
    filled: dict[Column, dict[int, int]] = {}
    for column, (depth, cluster) in known.items():
        at = np.clip(np.searchsorted(edges, depth, side="right") - 1, 0, whole)
        filled[column] = {int(k): len(np.unique(cluster[at == k])) for k in np.unique(at)}
    enough = {c: {k for k, n in bins.items() if n >= LEAST} for c, bins in filled.items()}
    wanted = sorted(set().union(*(e for e in enough.values() if len(e) > 1)))
    kept = [c for c in known if enough[c] >= set(wanted)] if wanted else []
    left = [
        f"{short_column(c)} has fewer than {LEAST} questions in {len(set(wanted) - enough[c])} of the {len(wanted)} bins"
        for c in known
        if c not in kept
    ]
    bounds = [(edges[k], edges[k + 1] if k < whole else np.inf) for k in wanted]
    return DepthBins(bounds, [_name(known, kept, b) for b in bounds], kept, left)


def _name(known: dict[Column, tuple[np.ndarray, np.ndarray]], kept: Sequence[Column], bounds: Bounds) -> str:
    """The one position that all items of a bin have, else its bounds."""
    inside = [
        d for c in kept for d in np.unique(np.round(known[c][0], 4)).tolist() if bounds[0] <= d < bounds[1]
    ]
    if inside and max(inside) - min(inside) < 0.005:
        return f"{inside[0]:.2g}"
    return f"{bounds[0]:.2g} to {min(bounds[1], 1.0):.2g}"
