"""Score by depth: where in the context the gold passage stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .board_cells import Column
from .board_rows import Row, columns_of, design
from .stats import Design, Effect
from .suite import title
from .views import Line, Options, Shown, Table, of_effect


def depths(rows: Sequence[Row], columns: Sequence[Column]) -> list[float]:
    """All depths in these columns, ascending."""
    found = [r.cells[c].scores.depth for r in rows for c in columns if c in r.cells and r.cells[c].scores]  # type: ignore[union-attr]
    return sorted({round(float(d), 4) for values in found for d in np.unique(values[~np.isnan(values)])})


def at_depth(row: Row, columns: Sequence[Column], depth: float) -> Effect | None:
    """Macro average over columns of the items at one depth; None where a column has none or is not complete."""
    parts, masks = [], []
    for column in columns:
        cell = row.cells.get(column)
        if cell is None or not cell.usable or cell.scores is None:
            return None
        mask = np.abs(cell.scores.depth - depth) < 1e-3
        if not mask.any():
            return None
        parts.append(cell.scores)
        masks.append(mask)
    at = np.concatenate(masks)
    whole = design(parts, columns)
    picked = Design(whole.cluster[at], whole.cell[at], _datasets(parts, columns)[at])
    return picked.score(np.concatenate([p.score for p in parts])[at])


def _datasets(parts: Sequence, columns: Sequence[Column]) -> np.ndarray:  # type: ignore[type-arg]
    known: dict[tuple[str, str], int] = {}
    codes = [known.setdefault(c[:2], len(known)) for c in columns]
    return np.repeat(codes, [len(p.item) for p in parts])


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
                lines.append(Line((row.name, row.setting["text"], row.prompt), cells))
        if lines:
            heading = f"{title(benchmark)} by depth of the gold passage (0 = start)"
            notes = ["Average over all datasets and lengths that have items at the depth."]
            return Table("depth", heading, [f"{d:.2g}" for d in levels], sorted(lines, key=lambda x: x.labels), notes)
    return None


def _shown(row: Row, columns: Sequence[Column], depth: float, options: Options) -> Shown:
    effect = at_depth(row, columns, depth) if columns else None
    if effect is None:
        return Shown(reason=row.gaps(columns) or "no item at this depth")
    return of_effect(effect, options.level)
