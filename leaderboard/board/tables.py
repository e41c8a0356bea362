"""Tables as plain data, with intervals, N, reasons and marks, which `render` turns into every format; and how
rows of a board become one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..multiple import apart
from ..stats import Effect
from ..text.printed import printed
from .cells import Cell, Column
from .rows import Row, difference

HEADS = ("model", "setting", "prompt")
ALONE = "one cluster: no interval"
SERIES = 12  # tables of one series (a model each) that board.md shows


@dataclass
class Shown:
    """One table cell, in display units. `kind`: score, diff (signed), number or length (tokens). `runs` are (fingerprint,
    task)."""

    kind: str = "score"
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    reason: str = ""
    mark: str = ""  # best, tied or "" in the column that ranks
    extra: str = ""
    unit: str = ""  # of a number; of a length the longest one measured
    runs: tuple[tuple[str, str], ...] = ()


@dataclass
class Line:
    """One table row: its labels (model, setting, prompt) and cells."""

    labels: tuple[str, ...]
    cells: list[Shown]
    ranked: bool = True
    reference: bool = False  # nobody could serve it (gold, none, oracle): shown, never ranked


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
    lead: str = ""  # a sentence between title and table
    shared: bool = False  # labels that all lines share stand in the title and are no column
    folded: bool = False
    series: str = (
        ""  # what tables of one kind are of ("model and benchmark"): many of them stand behind one line
    )


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
    parts += [cell.reason] if cell.status == "limited" and cell.reason else []
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
        cells = [_shown(row, columns, options.level) for _, columns in groups]
        if len(groups) > 1:
            cells.append(_shown(row, every, options.level))
        ranked = row.deployable and _ranked(row, have)
        lines.append((row, Line(row.labels, cells, ranked, not row.deployable)))
    if not lines:
        return None
    heads = [head for head, _ in groups] + ([average] if len(groups) > 1 else [])
    _marks([(row, x) for row, x in lines if x.ranked and x.cells[-1].value is not None], every)
    by = _column(options.sort, heads)
    lines.sort(
        key=lambda pair: (
            pair[1].reference,
            not pair[1].ranked,
            *(order(pair[0]) if order else ()),
            *_by(pair[1], by),
        )
    )
    found = Table(name, heading, heads, [line for _, line in lines], key=None if order else by)
    found.notes += limits([row for row, _ in lines], groups)
    return found


def limits(rows: Sequence[Row], groups: Sequence[tuple[str, Sequence[Column]]]) -> list[str]:
    """Notes on columns of which every row has the same part of the items only."""
    said: dict[str, list[str]] = {}
    for name, columns in groups:
        for text in dict.fromkeys(row.cells[c].limited for row in rows for c in columns if c in row.cells):
            if text:
                text += " in each cell" if len(columns) > 1 else ""
                said.setdefault(text, []).append(name)
    if len(said) == 1 and len(next(iter(said.values()))) == len(groups):
        return [f"All rows: {next(iter(said))}."]
    parts = [f"{text} of {', '.join(names)}" for text, names in said.items()]
    return [f"All rows: {'; '.join(parts)}."] if parts else []


def _shown(row: Row, columns: Sequence[Column], level: float) -> Shown:
    """A cell of a table, with the runs and tasks behind it: an average has several."""
    made = shown(_cell(row, columns), level)
    made.runs = made.runs or tuple((row.cells[c].run, row.cells[c].task) for c in columns if c in row.cells)
    return made


def _cell(row: Row, columns: Sequence[Column]) -> Cell | None:
    if len(columns) == 1:
        return row.cells.get(columns[0])
    return row.average(columns)


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
    """The largest group of rows whose cells may stand in one ranking (judge, metric, data, prompt, items of
    limited runs ...); of groups of equal size that with the best row. The others lose their rank and say
    why. Where all rows are of one model its prompts are what is compared."""
    allow = _waived(ranked)
    groups: dict[tuple[object, ...], list[tuple[Row, Line]]] = {}
    for pair in ranked:
        kinds = tuple(_kind(pair[0].cells[c], allow) for c in columns if c in pair[0].cells)
        groups.setdefault(kinds, []).append(pair)
    if len(groups) < 2:
        return ranked
    chosen = max(groups.values(), key=lambda g: (len(g), -min(_by(x, len(x.cells) - 1) for _, x in g)[0]))
    for group in groups.values():
        for row, line in group if group is not chosen else ():
            paired = difference(row, chosen[0][0], columns, allow=allow)
            _refuse(line, paired if isinstance(paired, str) else "other conditions")
    return chosen


def _waived(ranked: list[tuple[Row, Line]]) -> tuple[str, ...]:
    one = len({row.name for row, _ in ranked}) == 1
    return ("prompts",) if one and len({row.prompt for row, _ in ranked}) > 1 else ()


def _kind(cell: Cell, allow: Sequence[str]) -> object:
    """What cells of one ranking have in common; limited runs also their items."""
    kind: object = cell.identity
    if cell.identity is not None:
        kind = (replace(cell.identity, prompt="") if "prompts" in allow else cell.identity).kind
    if cell.status == "limited" and cell.scores is not None:
        return kind, len(cell.scores.at.item), hash(cell.scores.at.item.tobytes())
    return kind


def _refuse(line: Line, why: str) -> None:
    line.ranked = False
    line.cells[-1].extra = "not ranked, not comparable: " + why


def _marks(ranked: list[tuple[Row, Line]], columns: Sequence[Column]) -> None:
    """Best of the ranking column (of rows that print alike the first by name, which stands on top), and the
    rows whose paired difference to it is within the noise of all rows that are ranked."""
    allow = _waived(ranked)
    ranked = _one_kind(ranked, columns)
    if len(ranked) < 2:
        return
    best, line = min(ranked, key=lambda pair: _by(pair[1], len(pair[1].cells) - 1))
    line.cells[-1].mark = "best"
    for row, other in ranked:
        if row is best:
            continue
        paired = difference(row, best, columns, allow=allow)
        if isinstance(paired, str):
            _refuse(other, paired)
            continue
        if not apart(paired.effect(), len(ranked)):
            other.cells[-1].mark = "tied"
