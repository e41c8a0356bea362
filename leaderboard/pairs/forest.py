"""The forest plot of a gate or a comparison: suite, benchmarks and cells with their intervals and margins."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..plots import Chart, Row, forest
from ..text.printed import printed
from .compare import Comparison, Line
from .gate import Verdict

CELLS = 12  # the cells that moved most; the table has all


def of_gate(found: Verdict, title: str) -> Chart:
    """The gated endpoints, each with its margin; interval 1 - 2 alpha, as the verdict reads it."""
    level = 1 - 2 * found.alpha
    rows = [_row(e.line, level, margin=100 * e.margin, note=e.verdict) for e in found.endpoints]
    return forest(title, rows or [Row("suite", None, note=found.verdict)])


def of_comparison(found: Comparison, title: str, level: float = 0.95) -> Chart:
    """Suite and benchmarks, then the cells that moved most."""
    # cells that moved alike keep the order of their names
    by_move = sorted(found.cells, key=lambda line: -abs(printed(100 * line.delta.mean)))
    moved = by_move[:CELLS] if len(found.cells) > 1 else []
    return forest(title, [_row(line, level) for line in [*found.lines, *_in_order(found.cells, moved)]])


def _in_order(lines: Sequence[Line], chosen: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line in chosen]


def _row(line: Line, level: float, *, margin: float | None = None, note: str = "") -> Row:
    mean, low, high = line.delta.in_points(level)
    if not (math.isfinite(low) and math.isfinite(high)):
        return Row(line.title, None, margin=margin, note="one cluster: no interval")
    return Row(line.title, mean, low, high, margin, note)
