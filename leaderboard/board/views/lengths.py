"""Datasets with lengths: averaged, and by length (Tables 1 and 11 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_tasks.registry import view

from ...text.names import title
from ..rows import columns_of
from ..tables import Table, grid

if TYPE_CHECKING:
    from ..build import Board


@view("lengths", order=30, absent="no benchmark with nominal lengths")
def lengths(board: Board) -> list[Table]:
    """Tables 1 and 11: datasets with lengths, averaged over lengths, and by length for each dataset."""
    rows, options = board.rows, board.options
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
