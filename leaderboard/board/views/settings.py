"""Benchmarks without nominal lengths, blocks by setting (Tables 2 and 12 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_tasks.registry import view

from ...text.names import title
from ..cells import short_column
from ..rows import Row, columns_of, suite_of
from ..tables import Table, grid

if TYPE_CHECKING:
    from ..build import Board


def settings_order(row: Row) -> tuple[int, float, str]:
    kinds = ("full", "gold", "none", "kv", "rag", "route")
    kind, amount = row.setting.get("kind"), row.setting.get("amount")
    size = -float(amount) if isinstance(amount, int | float) else 0.0
    return kinds.index(kind) if kind in kinds else len(kinds), size, row.setting["text"]


@view("settings", order=20, absent="no benchmark without nominal lengths")
def settings(board: Board) -> list[Table]:
    """Tables 2 and 12: benchmarks without nominal lengths, blocks by setting; foreign tasks have tables of
    their own."""
    rows, options = board.rows, board.options
    columns = [c for c in columns_of(rows) if not c[2]]
    order = None if options.sort else lambda row: settings_order(row)[:1]
    parts = {"settings": ("Benchmarks by setting", suite_of(columns))}
    for benchmark in dict.fromkeys(c[0] for c in columns if c not in parts["settings"][1]):
        parts[f"settings-{benchmark}"] = (title(benchmark), [c for c in columns if c[0] == benchmark])
    found = [
        grid(name, heading, rows, [(short_column(c), [c]) for c in own], options, order=order)
        for name, (heading, own) in parts.items()
    ]
    return [t for t in found if t]
