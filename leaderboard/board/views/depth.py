"""Score by depth: where in the context the gold passage stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from icr_tasks.registry import view

from ...stats import Effect
from ...text.names import title
from ..cells import Column, at_depth, design
from ..rows import Row, columns_of
from ..tables import Line, Options, Shown, Table, of_effect

if TYPE_CHECKING:
    from ..build import Board


def depths(rows: Sequence[Row], columns: Sequence[Column]) -> list[float]:
    """All depths in these columns, ascending."""
    cells = [r.cells[c] for r in rows for c in columns if c in r.cells]
    places = {
        id(cell.scores.at): cell.scores.at.depth for cell in cells if cell.scores
    }  # shared by most rows
    return sorted(
        {round(float(d), 4) for values in places.values() for d in np.unique(values[~np.isnan(values)])}
    )


def score(row: Row, columns: Sequence[Column], depth: float) -> Effect | None:
    """Macro average over columns of the items at one depth; None where a column has none or is not
    complete."""
    parts = [cell.scores for c in columns if (cell := row.cells.get(c)) and cell.usable and cell.scores]
    masks = [at_depth(p.at, depth) for p in parts]
    if len(parts) < len(columns) or not all(mask.any() for mask in masks):
        return None
    values = np.concatenate([p.score[mask] for p, mask in zip(parts, masks, strict=True)])
    return design([p.at for p in parts], columns, depth).score(values)


def table(rows: Sequence[Row], options: Options) -> Table | None:
    """The first benchmark with depths that are shared by many items; None where there is none."""
    for benchmark in dict.fromkeys(c[0] for c in columns_of(rows)):
        columns = [c for c in columns_of(rows) if c[0] == benchmark]
        levels = depths(rows, columns)
        if not 2 <= len(levels) <= 12:
            continue
        spread = {c: depths(rows, [c]) for c in columns}
        at = {d: [c for c in columns if d in spread[c] and len(spread[c]) > 1] for d in levels}
        lines = []
        for row in rows:
            cells = [_shown(row, at[d], d, options) for d in levels]
            if any(c.value is not None for c in cells):
                labels = (row.name, row.setting["text"], row.prompt)
                lines.append(Line(labels, cells, row.deployable, not row.deployable))
        if lines:
            heading = f"{title(benchmark)} by depth of the gold passage (0 = start)"
            notes = ["Average over all datasets and lengths that have items at the depth."]
            return Table(
                "depth", heading, [f"{d:.2g}" for d in levels], sorted(lines, key=lambda x: x.labels), notes
            )
    return None


def _shown(row: Row, columns: Sequence[Column], depth: float, options: Options) -> Shown:
    effect = score(row, columns, depth) if columns else None
    if effect is None:
        return Shown(reason=row.gaps(columns) or "no item at this depth")
    return of_effect(effect, options.level)


@view("depth", order=60)
def depth(board: Board) -> list[Table]:
    """Score by position of the gold passage (0 = start), averaged over datasets and lengths."""
    found = table(board.rows, board.options)
    return [found] if found else []
