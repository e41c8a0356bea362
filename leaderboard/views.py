"""The paper's tables as views over the rows of a board. A new view is one function and one line in VIEWS.

A view returns a Table: plain data with intervals, N and reasons, which `render` turns into every format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .board_cells import Cell, Column, short_column
from .board_rows import Row, columns_of, difference
from .stats import Effect
from .suite import title

HEADS = ("model", "setting", "prompt")


@dataclass
class Shown:
    """One table cell, in display units. `kind`: score, diff (signed) or number. `runs` are (fingerprint, task)."""

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
    """A view. `notes` stand below it; `key` is the index of the column that lines are sorted by, None for blocks."""

    name: str
    title: str
    columns: list[str]
    lines: list[Line]
    notes: list[str] = field(default_factory=list)
    heads: tuple[str, ...] = HEADS
    key: int | None = None


@dataclass
class Options:
    """What a user chose: `base` model for difference-in-differences, `sort` column; and the rows of `icr rank`."""

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
    reason = f"{cell.status}: {cell.reason}" if cell.status in ("partial", "stale") else ""
    return of_effect(cell.effect, level, reason=reason, runs=runs)


def of_effect(effect: Effect, level: float, *, kind: str = "score", reason: str = "", runs: tuple = ()) -> Shown:  # type: ignore[type-arg]
    """A mean with its interval x 100."""
    known = math.isfinite(effect.se)
    reason = reason or ("" if known else "one cluster: no interval")
    bounds = [100 * v for v in effect.ci(level)] if known else (None, None)
    return Shown(kind, 100 * effect.mean, *bounds, effect.n, reason, runs=runs)


def grid(
    name: str, heading: str, rows: Sequence[Row], groups: Sequence[tuple[str, Sequence[Column]]], options: Options,
    *, average: str = "avg", order: Callable[[Row], tuple] | None = None,  # type: ignore[type-arg]
) -> Table | None:  # fmt: skip
    """Rows x groups of columns plus their average; the average column ranks. None when no row has any of it."""
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
    value = line.cells[at].value if 0 <= at < len(line.cells) else None
    return (math.inf if value is None else -value, line.labels)


def _column(wanted: str | None, heads: Sequence[str]) -> int:
    """Index of the column to sort by: the named one where this view has it, else the last."""
    return list(heads).index(wanted) if wanted in heads else len(heads) - 1


def _marks(ranked: list[tuple[Row, Line]], columns: Sequence[Column]) -> None:
    """Best of the ranking column, and the rows whose paired difference to it is within noise (p >= 0.05)."""
    if len(ranked) < 2:
        return
    best, line = max(ranked, key=lambda pair: (pair[1].cells[-1].value or 0.0, pair[1].labels))
    line.cells[-1].mark = "best"
    for row, other in ranked:
        if row is best:
            continue
        paired = difference(row, best, columns)
        if isinstance(paired, str):
            other.cells[-1].extra = "not comparable with the best: " + paired
            continue
        found = paired[0].effect(paired[1] - paired[2])
        if found.p >= 0.05:
            other.cells[-1].mark = "tied"


def overview(rows: Sequence[Row], options: Options) -> list[Table]:
    """Model x setting: one column a benchmark, and the suite (datasets equal)."""
    columns = columns_of(rows)
    benchmarks = list(dict.fromkeys(c[0] for c in columns))
    groups = [(title(b), [c for c in columns if c[0] == b]) for b in benchmarks]
    found = grid("board", "Board", rows, groups, options, average="suite")
    return [found] if found else []


def lengths(rows: Sequence[Row], options: Options) -> list[Table]:
    """Tables 1 and 11: datasets with lengths, averaged over lengths, and by length for each dataset."""
    columns = [c for c in columns_of(rows) if c[2]]
    tables = []
    for benchmark in dict.fromkeys(c[0] for c in columns):
        datasets = list(dict.fromkeys(c[1] for c in columns if c[0] == benchmark))
        by = {d: [c for c in columns if c[:2] == (benchmark, d)] for d in datasets}
        if len(datasets) > 1:
            heading = f"{title(benchmark)}, average over lengths"
            tables.append(grid(f"datasets-{benchmark}", heading, rows, list(by.items()), options))
        for dataset, own in by.items():
            heading = f"{title(benchmark)} {dataset if dataset != 'rag' else ''}".strip() + " by length"
            groups = [(c[2], [c]) for c in own]
            tables.append(grid(f"length-{benchmark}-{dataset}", heading, rows, groups, options))
    return [t for t in tables if t]


def _settings_order(row: Row) -> tuple[int, float, str]:
    kinds = ("full", "gold", "none", "kv", "rag")
    kind, amount = row.setting.get("kind"), row.setting.get("amount")
    size = -float(amount) if isinstance(amount, int | float) else 0.0
    return kinds.index(kind) if kind in kinds else len(kinds), size, row.setting["text"]


def settings(rows: Sequence[Row], options: Options) -> list[Table]:
    """Tables 2 and 12: benchmarks without nominal lengths, blocks by setting."""
    columns = [c for c in columns_of(rows) if not c[2]]
    groups = [(short_column(c), [c]) for c in columns]
    order = None if options.sort else lambda row: _settings_order(row)[:1]
    found = grid("settings", "Benchmarks by setting", rows, groups, options, order=order)
    return [found] if found else []


def rag(rows: Sequence[Row], options: Options) -> list[Table]:
    """Table 10: each model with its full context and every retrieval budget."""
    kept = [r for r in rows if r.setting.get("kind") in ("full", "rag")]
    models = {r.name for r in kept if r.setting["kind"] == "rag"}
    kept = [r for r in kept if r.name in models]
    columns = [c for c in columns_of(kept) if not c[2]] or columns_of(kept)
    groups: dict[str, list[Column]] = {}
    for c in columns:
        groups.setdefault(short_column((*c[:2], "")), []).append(c)
    order = None if options.sort else lambda row: (row.name, *_settings_order(row))
    found = (
        grid("rag", "Full context and retrieval", kept, list(groups.items()), options, order=order) if kept else None
    )
    return [found] if found else []


def depth(rows: Sequence[Row], options: Options) -> list[Table]:
    """Score by position of the gold passage (0 = start), averaged over datasets and lengths."""
    from .views_depth import table

    found = table(rows, options)
    return [found] if found else []


def drop(rows: Sequence[Row], options: Options) -> list[Table]:
    """Table 3: what compression costs, and whether training reduces that."""
    from .views_drop import tables

    return tables(rows, options)


def ranking(rows: Sequence[Row], options: Options) -> list[Table]:
    """Table 4: how well attention ranks the documents."""
    from .views_ranking import tables

    return tables(options)


def cost(rows: Sequence[Row], options: Options) -> list[Table]:
    """What each row costs."""
    from .views_cost import table

    return [table(rows)]


VIEWS: dict[str, Callable[[Sequence[Row], Options], list[Table]]] = {
    "board": overview,
    "settings": settings,
    "lengths": lengths,
    "drop": drop,
    "rag": rag,
    "depth": depth,
    "ranking": ranking,
    "cost": cost,
}
