"""The paper's tables as views over the rows of a board. A new view is one function and one line in VIEWS."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...text.names import title
from ..cells import Column, short_column
from ..rows import Row, columns_of, suite_of
from ..tables import Options, Table, grid
from . import cost as views_cost
from . import depth as views_depth
from . import drop as views_drop
from . import ranking as views_ranking


def overview(rows: Sequence[Row], options: Options) -> list[Table]:
    """Model x setting: one column a benchmark, and the suite (datasets equal)."""
    columns = suite_of(columns_of(rows))
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
    """Tables 2 and 12: benchmarks without nominal lengths, blocks by setting; foreign tasks have tables of
    their own."""
    columns = [c for c in columns_of(rows) if not c[2]]
    order = None if options.sort else lambda row: _settings_order(row)[:1]
    parts = {"settings": ("Benchmarks by setting", suite_of(columns))}
    for benchmark in dict.fromkeys(c[0] for c in columns if c not in parts["settings"][1]):
        parts[f"settings-{benchmark}"] = (title(benchmark), [c for c in columns if c[0] == benchmark])
    found = [
        grid(name, heading, rows, [(short_column(c), [c]) for c in own], options, order=order)
        for name, (heading, own) in parts.items()
    ]
    return [t for t in found if t]


def rag(rows: Sequence[Row], options: Options) -> list[Table]:
    """Table 10: each model with its full context and every retrieval budget."""
    kept = [r for r in rows if r.setting.get("kind") in ("full", "rag")]
    models = {r.name for r in kept if r.setting["kind"] == "rag"}
    kept = [r for r in kept if r.name in models]
    columns = suite_of(columns_of(kept))
    columns = [c for c in columns if not c[2]] or columns
    groups: dict[str, list[Column]] = {}
    for c in columns:
        groups.setdefault(short_column((*c[:2], "")), []).append(c)
    order = None if options.sort else lambda row: (row.name, *_settings_order(row))
    found = (
        grid("rag", "Full context and retrieval", kept, list(groups.items()), options, order=order)
        if kept
        else None
    )
    return [found] if found else []


def depth(rows: Sequence[Row], options: Options) -> list[Table]:
    """Score by position of the gold passage (0 = start), averaged over datasets and lengths."""
    found = views_depth.table(rows, options)
    return [found] if found else []


def drop(rows: Sequence[Row], options: Options) -> list[Table]:
    """Table 3: what compression costs, and whether training reduces that."""
    return views_drop.tables(rows, options)


def ranking(rows: Sequence[Row], options: Options) -> list[Table]:
    """Table 4: how well attention ranks the documents."""
    return views_ranking.tables(options)


def cost(rows: Sequence[Row], options: Options) -> list[Table]:
    """What each row costs."""
    return [views_cost.table(rows)]


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
