"""Model x setting: one column a benchmark, and the suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_tasks.registry import view

from ...text import suite
from ...text.names import title
from ..rows import columns_of, suite_of
from ..tables import Table, grid

if TYPE_CHECKING:
    from ..build import Board


@view("board", order=10)
def overview(board: Board) -> list[Table]:
    """Model x setting: one column a benchmark, and the suite (datasets equal)."""
    rows, options = board.rows, board.options
    columns = suite_of(columns_of(rows))
    benchmarks = list(dict.fromkeys(c[0] for c in columns))
    groups = [(title(b), [c for c in columns if c[0] == b]) for b in benchmarks]
    found = grid("board", "Board", rows, groups, options, average="suite")
    if found and (said := suite.sentence(benchmarks)):
        found.notes.append(said)
    return [found] if found else []
