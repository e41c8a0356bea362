"""Tables as plain data, with intervals, N, reasons and marks, which `render` turns into every format; and how
rows of a board become one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..stats import Effect
from ..text.printed import printed, settled
from .cells import Cell, Column
from .rows import Row, difference

HEADS = ("model", "setting", "prompt")
ALONE = "one cluster: no interval"


@dataclass
class Shown:
    """One table cell, in display units. `kind`: score, diff (signed) or number. `runs` are (fingerprint,
    task)."""

    kind: str = "score"
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    reason: str = ""
    mark: str = ""  # best, tied or "" in the column that ranks
    extra: str = ""
    unit: str = ""
    runs: tuple[tuple[str, str], ...] = ()


@dataclass
class Line:
    """One table row: its labels (model, setting, prompt) and cells."""

    labels: tuple[str, ...]
    cells: list[Shown]
    ranked: bool = True


@dataclass
class Table:
    """A view. `notes` stand below it; `key` is the index of the column that lines are sorted by, None for
    blocks."""

    name: str
    title: str
    columns: list[str]
    lines: list[Line]
    notes: list[str] = field(default_factory=list)
    heads: tuple[str, ...] = HEADS
    key: int | None = None


@dataclass
class Options:
    """What a user chose: `base` model for difference-in-differences, `sort` column; and the rows of `icr
    rank`."""

    base: str | None = None
    sort: str | None = None
    level: float = 0.95
    rankings: list[Row] = field(default_factory=list)


def shown(cell: Cell | None, level: float, columns: Sequence[Column] = ()) -> Shown:
    """A cell or average for a table."""
    if cell is None:
        return Shown(reason="no run has it")
    runs = ((cell.run, cell.task),) if cell.run else ()
    if cell.effect is None:
        return Shown(reason=cell.reason, n=0 if cell.run else None, runs=runs)
    parts = [f"{cell.status}: {cell.reason}"] if cell.status in ("partial", "stale") else []
    if not parts and not math.isfinite(cell.effect.se):
        parts.append(ALONE)
    reason = "; ".join([*parts, *cell.marks])
    return of_effect(cell.effect, level, reason=reason, runs=runs)


def of_effect(
    effect: Effect, level: float, *, kind: str = "score", reason: str = "", runs: tuple = ()
) -> Shown:  # type: ignore[type-arg]
    """A mean with its interval x 100."""
    known = math.isfinite(effect.se)
    reason = reason or ("" if known else ALONE)
    mean, low, high = effect.in_points(level)
    if not known:
        return Shown(kind, mean, None, None, effect.n, reason, runs=runs)
    return Shown(kind, mean, low, high, effect.n, reason, runs=runs)


def grid(
    name: str,
    heading: str,
    rows: Sequence[Row],
    groups: Sequence[tuple[str, Sequence[Column]]],
    options: Options,
    *,
    average: str = "avg",
    order: Callable[[Row], tuple] | None = None,  # type: ignore[type-arg]
) -> Table | None:
    """Rows x groups of columns plus their average; the average column ranks. None when no row has any of
    it."""
    every = [c for _, columns in groups for c in columns]
    lines: list[tuple[Row, Line]] = []
    for row in rows:
        have = [c for c in every if c in row.cells]
        if not have:
            continue
        cells = [shown(_cell(row, columns), options.level) for _, columns in groups]
        if len(groups) > 1:
            cells.append(shown(row.average(every), options.level))
        lines.append((row, Line((row.name, row.setting["text"], _prompt(row)), cells, _ranked(row, have))))
    if not lines:
        return None
    heads = [head for head, _ in groups] + ([average] if len(groups) > 1 else [])
    ranked = [(row, line) for row, line in lines if line.ranked]
    _marks([(row, line) for row, line in ranked if line.cells[-1].value is not None], every)
    by = _column(options.sort, heads)
    lines.sort(key=lambda pair: (not pair[1].ranked, *(order(pair[0]) if order else ()), *_by(pair[1], by)))
    return Table(name, heading, heads, [line for _, line in lines], key=None if order else by)


def _cell(row: Row, columns: Sequence[Column]) -> Cell | None:
    if len(columns) == 1:
        return row.cells.get(columns[0])
    return row.average(columns)


def _prompt(row: Row) -> str:
    return " ".join(p for p in (row.prompt, row.variant) if p)


def _ranked(row: Row, columns: Sequence[Column]) -> bool:
    """Partial, stale and failed cells keep a row out of the ranking of a view; missing ones leave a dash."""
    return all(row.cells[c].usable for c in columns)


def _by(line: Line, at: int) -> tuple[float, tuple[str, ...]]:
    """Highest printed value first, then by name: rows that print alike have no other order."""
    value = line.cells[at].value if 0 <= at < len(line.cells) else None
    return (math.inf if value is None else -printed(value), line.labels)


def _column(wanted: str | None, heads: Sequence[str]) -> int:
    """Index of the column to sort by: the named one where this view has it, else the last."""
    return list(heads).index(wanted) if wanted is not None and wanted in heads else len(heads) - 1


def _one_kind(ranked: list[tuple[Row, Line]], columns: Sequence[Column]) -> list[tuple[Row, Line]]:
    """The largest group of rows whose cells may stand in one ranking (judge, metric, data, prompt ...); of
    groups of equal size that with the best row. The others lose their rank and say why."""
    groups: dict[tuple[object, ...], list[tuple[Row, Line]]] = {}
    for pair in ranked:
        kinds = tuple(
            found.kind if (found := pair[0].cells[c].identity) else None
            for c in columns
            if c in pair[0].cells
        )
        groups.setdefault(kinds, []).append(pair)
    if len(groups) < 2:
        return ranked
    chosen = max(groups.values(), key=lambda g: (len(g), -min(_by(x, len(x.cells) - 1) for _, x in g)[0]))
    for group in groups.values():
        for row, line in group if group is not chosen else ():
            paired = difference(row, chosen[0][0], columns)
            _refuse(line, paired if isinstance(paired, str) else "other conditions")
    return chosen


def _refuse(line: Line, why: str) -> None:
    line.ranked = False
    line.cells[-1].extra = "not ranked, not comparable: " + why


def _marks(ranked: list[tuple[Row, Line]], columns: Sequence[Column]) -> None:
    """Best of the ranking column (of rows that print alike the first by name, which stands on top), and the
    rows whose paired difference to it is within noise (p >= 0.05)."""
    ranked = _one_kind(ranked, columns)
    if len(ranked) < 2:
        return
    best, line = min(ranked, key=lambda pair: _by(pair[1], len(pair[1].cells) - 1))
    line.cells[-1].mark = "best"
    for row, other in ranked:
        if row is best:
            continue
        paired = difference(row, best, columns)
        if isinstance(paired, str):
            _refuse(other, paired)
            continue
        found = paired[0].effect(paired[1] - paired[2])
        if settled(found.p) >= 0.05:
            other.cells[-1].mark = "tied"
