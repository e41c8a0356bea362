"""The board's tables in LaTeX (booktabs), as `icr board --format latex` prints them."""

from __future__ import annotations

from pathlib import Path

from icr_tasks.registry import EXPORTS
from icr_tasks.storage import write_atomic

from ..board import render
from ..board.build import build
from ..board.tables import Options
from ._source import Source


@EXPORTS.register("latex")
def latex(source: Source, out: Path) -> list[Path]:
    """Write board.tex."""
    board = build(source.root, Options())
    source.skipped += board.bad
    path = out / "board.tex"
    write_atomic(path, render.latex(board.tables).encode())
    return [path]
