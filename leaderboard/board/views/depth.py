"""Score by depth: where in the context the gold passage stands, in bins, over the same datasets in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from icr_tasks.registry import view

from ...text.names import listed, title
from ..cells import Column
from ..depths import DepthBins, depth_bins
from ..rows import Row, columns_of
from ..tables import Line, Options, Shown, Table, of_effect

if TYPE_CHECKING:
    from ..build import Board


def table(name: str, benchmark: str, rows: Sequence[Row], bins: DepthBins, options: Options) -> Table | None:
    """One benchmark by bins; None where no row has all of its columns."""
    lines = []
    for row in rows:
        cells = [_shown(row, bins, k, options) for k in range(len(bins.bounds))]
        if any(c.value is not None for c in cells):
            lines.append(Line(row.labels, cells, row.deployable, not row.deployable))
    if not lines:
        return None
    heading = f"{title(benchmark)} by depth of the gold passage (0 = start)"
    notes = ["Average over the same datasets and lengths at every depth."]
    notes += [f"Left out: {listed(bins.left_out, 6, '; ')}."] if bins.left_out else []
    return Table(name, heading, list(bins.names), sorted(lines, key=lambda x: (x.reference, x.labels)), notes)


def _shown(row: Row, bins: DepthBins, k: int, options: Options) -> Shown:
    effect = bins.score(row, k)
    return Shown(reason=effect) if isinstance(effect, str) else of_effect(effect, options.level)


@view("depth", order=60)
def depth(board: Board) -> list[Table]:
    """Score by position of the gold passage (0 = start), averaged over datasets and lengths."""
    found: list[Table] = []
    why: list[str] = []
    columns = columns_of(board.rows)
    for benchmark in dict.fromkeys(c[0] for c in columns):
        own: list[Column] = [c for c in columns if c[0] == benchmark]
        bins = depth_bins(board.rows, own)
        if isinstance(bins, str):
            why.append(f"{title(benchmark)}: {bins}")
            continue
        made = table(f"depth-{benchmark}" if found else "depth", benchmark, board.rows, bins, board.options)
        if made is None:
            why.append(f"{title(benchmark)}: no row has all of its datasets and lengths")
        else:
            found.append(made)
    if not found:
        board.left_out["depth"] = "; ".join(why)
    return found
