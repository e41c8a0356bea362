"""Each model with its full context and every retrieval budget (Table 10 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_tasks.registry import view

from ..cells import Column, short_column
from ..rows import columns_of, suite_of
from ..tables import Table, grid
from .settings import settings_order

if TYPE_CHECKING:
    from ..build import Board


@view("rag", order=50, absent="no retrieval run")
def rag(board: Board) -> list[Table]:
    """Table 10: each model with its full context and every retrieval budget."""
    rows, options = board.rows, board.options
    kept = [r for r in rows if r.setting.get("kind") in ("full", "rag", "route")]
    models = {r.name for r in kept if r.setting["kind"] in ("rag", "route")}
    kept = [r for r in kept if r.name in models]
    columns = suite_of(columns_of(kept))
    columns = [c for c in columns if not c[2]] or columns
    groups: dict[str, list[Column]] = {}
    for c in columns:
        groups.setdefault(short_column((*c[:2], "")), []).append(c)
    order = None if options.sort else lambda row: (row.name, *settings_order(row))
    found = (
        grid("rag", "Full context and retrieval", kept, list(groups.items()), options, order=order)
        if kept
        else None
    )
    return [found] if found else []
