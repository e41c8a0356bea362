"""Data of the depth heat maps: score by where the gold passage stands, in the bins of the depth tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..plots import Chart, Panel, heat
from .cells import Bounds, Column, in_bin
from .depths import depth_bins
from .rows import Row, columns_of, difference, lengths_of

Grid = list[list[float | None]]


def heats(rows: Sequence[Row]) -> Iterator[tuple[str, Chart]]:
    """Full context of a model beside its first other setting, and their difference; else the full context
    alone. A benchmark without enough positions has none; its depth table says why."""
    for row in rows:
        if row.setting.get("kind") != "full":
            continue
        usable = [c for c in columns_of([row]) if c[2] and row.cells[c].usable]
        for benchmark in dict.fromkeys(c[0] for c in usable):
            bins = depth_bins([row], [c for c in usable if c[0] == benchmark])
            if isinstance(bins, str):
                continue
            lengths = lengths_of(bins.columns)
            grid, n = _matrix(row, bins.columns, bins.bounds, lengths)
            panels = [Panel(row.setting["text"], grid, n=n)]
            other = next((r for r in rows if _beside(r, row, bins.columns)), None)
            if other is not None:
                theirs, m = _matrix(other, bins.columns, bins.bounds, lengths)
                gap = [
                    [_minus(a, b) for a, b in zip(x, y, strict=True)]
                    for x, y in zip(theirs, grid, strict=True)
                ]
                name = other.setting["text"]
                panels += [Panel(name, theirs, n=m), Panel(f"{name} - full", gap, difference=True, n=m)]
            heading = f"{row.name} {row.prompt}: score by depth and length".replace(" :", ":")
            yield f"{row.name}-{row.prompt}-{benchmark}", heat(heading, bins.names, lengths, panels)
        return


def _beside(other: Row, full: Row, columns: Sequence[Column]) -> bool:
    served = other.setting.get("kind") in ("kv", "rag")
    return served and not isinstance(difference(other, full, columns), str)


def _matrix(
    row: Row, columns: Sequence[Column], bounds: Sequence[Bounds], lengths: Sequence[str]
) -> tuple[Grid, list[list[int]]]:
    """Mean score x 100 and N by bin (rows) and length (columns), datasets equal: each has items in all bins."""
    grid: Grid = []
    counts: list[list[int]] = []
    for bound in bounds:
        grid.append([])
        counts.append([])
        for length in lengths:
            parts = [row.cells[c].scores for c in columns if c[2] == length]
            found = [s.score[in_bin(s.at, bound)] for s in parts if s is not None]
            found = [f for f in found if len(f)]
            grid[-1].append(100 * float(np.mean([f.mean() for f in found])) if found else None)
            counts[-1].append(sum(map(len, found)))
    return grid, counts


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
