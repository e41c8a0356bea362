"""Table 3 of the paper, from items: the drop under compression with its interval, and the difference of two
drops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from icr_tasks.errors import unknown
from icr_tasks.registry import view

from ...ledgers.inputs import thoughts
from ...text.names import listed
from ..cells import Column, short_column
from ..join import started
from ..partners import by_model, compressed, uncompressed
from ..rows import Row, columns_of, difference, suite_of
from ..tables import Line, Options, Shown, Table, of_effect

if TYPE_CHECKING:
    from ..build import Board


def tables(rows: Sequence[Row], options: Options) -> list[Table]:
    """One line a compressed row with a partner of the same model and prompt that compresses nothing: full
    context, or the same retrieval alone."""
    of_model = by_model(rows)
    found = [(row, uncompressed(row, of_model[row.key[:2]])) for row in rows if compressed(row)]
    pairs = [(row, full) for row, full in found if full]
    if not pairs:
        return []
    alone = [row.label for row, full in found if not full]
    groups = _groups([row for row, _ in pairs])
    every = suite_of([c for _, columns in groups for c in columns])
    base = _base(pairs, options.base)
    of_base = [pair for pair in pairs if pair[0].name == base]
    lines = []
    for row, full in pairs:
        cells = [_cell(row, full, columns, options.level) for _, columns in groups]
        if len(groups) > 1:
            cells.append(_cell(row, full, every, options.level))
        cells.append(_twice(row, full, base, of_base, every, options.level))
        lines.append(Line(row.labels, cells))
    lines.sort(key=lambda line: (line.labels[1], line.labels[0] != base, line.labels))
    heads = [name for name, _ in groups] + (["avg"] if len(groups) > 1 else []) + [f"vs drop of {base}"]
    notes = [
        "Points lost against the full context of the same model (after retrieval: against the same retrieval "
        "alone) on the same items, with interval; in brackets the "
        "relative change by the delta method. The average is of points, over datasets.",
        f"Last column: this model's drop minus that of {base} under the same setting (positive: loses less); "
        "choose the reference with --base.",
        *([f"Without one run to compare with: {listed(alone, 6, '; ')}."] if alone else []),
    ]
    return [Table("drop", "Drop under compression", heads, lines, notes)]


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[Column]]]:
    found: dict[str, list[Column]] = {}
    for c in columns_of(rows):
        found.setdefault(short_column((*c[:2], "")), []).append(c)
    return list(found.items())


def _base(pairs: Sequence[tuple[Row, Row]], wanted: str | None) -> str:
    """The reference model: the named one, else the one whose full-context run is oldest."""
    names = {row.name for row, _ in pairs}
    if wanted is not None and wanted not in names:
        raise unknown("model with a compressed run", wanted, sorted(names))
    if wanted is not None:
        return wanted
    return min(pairs, key=lambda pair: (started(pair[1].heads[0]), pair[1].name))[0].name


def _cell(row: Row, full: Row, columns: Sequence[Column], level: float) -> Shown:
    paired = difference(row, full, columns)
    if isinstance(paired, str):
        return Shown("diff", reason=paired)
    found = of_effect(paired.effect(), level, kind="diff")
    relative = paired.design.relative(paired.new, paired.base, same=paired.same)
    if math.isfinite(relative.mean):
        mean, low, high = relative.in_points(level)
        bounds = f" [{low:+.0f}, {high:+.0f}]" if math.isfinite(low) else ""
        found.extra = f"{mean:+.1f} %{bounds}"
    return found


def _twice(
    row: Row,
    full: Row,
    base: str,
    of_base: Sequence[tuple[Row, Row]],
    columns: Sequence[Column],
    level: float,
) -> Shown:
    """(compressed - full) of this model minus the same of the reference, on the same items."""
    if row.name == base:
        return Shown("diff", reason="reference")
    how = thoughts(row.heads[0])
    own = [(r, f) for r, f in of_base if r.setting["text"] == row.setting["text"]]
    alike = [pair for pair in own if thoughts(pair[0].heads[0]) == how]
    # its own prompt first, then what is made like it
    other = min(alike, key=lambda p: (p[0].prompt != row.prompt, p[0].variant != row.variant), default=None)
    if other is None:
        what = f" with {how or 'no switch of thoughts'}" if own else ""
        return Shown("diff", reason=f"{base} has no run under {row.setting['text']}{what}")
    ours, theirs, across = (
        difference(row, full, columns),
        difference(*other, columns),
        difference(row, other[0], columns),
    )
    for found in (ours, theirs, across):
        if isinstance(found, str):
            return Shown("diff", reason=found)
    assert not isinstance(ours, str) and not isinstance(theirs, str)
    effect = ours.design.effect(ours.change - theirs.change, same=ours.same & theirs.same)
    return of_effect(effect, level, kind="diff")


@view("drop", order=40, absent="no compressed run beside one of the same model without compression")
def drop(board: Board) -> list[Table]:
    """Table 3: what compression costs, and whether training reduces that."""
    return tables(board.rows, board.options)
