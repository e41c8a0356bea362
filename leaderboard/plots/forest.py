"""Forest plot: a difference and its interval per endpoint, with the margin that decides the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .canvas import Canvas, nice_ticks, num, short, tenth, width


@dataclass(frozen=True)
class Row:
    """One endpoint, in points (score x 100). `delta` None: not comparable, `note` says why."""

    name: str
    delta: float | None
    low: float = 0.0
    high: float = 0.0
    margin: float | None = None
    note: str = ""


def forest(title: str, rows: Sequence[Row], *, x_label: str = "difference in points, new - base") -> str:
    """SVG: zero line, one interval a row, the margin as a short bar at -margin, the verdict at the right."""
    names = [short(r.name, 40) for r in rows]
    left = max([60.0, *(width(n) + 20 for n in names)])
    notes = [_note(r) for r in rows]
    plot, step, top = 340, 26, 40
    size = (int(left + plot + max([60.0, *(width(n, 11) + 24 for n in notes)])), top + step * len(rows) + 52)
    canvas = Canvas(size, title)
    canvas.text(12, 22, title, cls="title")
    ends = (
        [0.0]
        + [v for r in rows if r.delta is not None for v in (r.low, r.high)]
        + [-r.margin for r in rows if r.margin]
    )
    ticks = nice_ticks(min(ends), max(ends), 6)
    bottom = top + step * len(rows)

    def px(x: float) -> float:
        return left + plot * (x - ticks[0]) / (ticks[-1] - ticks[0])

    for t in ticks:
        canvas.line(px(t), top, px(t), bottom, "axis" if t == 0 else "grid")
        canvas.text(px(t), bottom + 16, num(t) if t <= 0 else f"+{num(t)}", cls="soft small", anchor="middle")
    margins = " (bar: margin)" if any(r.margin for r in rows) else ""
    canvas.text(left + plot / 2, size[1] - 10, x_label + margins, cls="soft small", anchor="middle")
    for i, (row, name, note) in enumerate(zip(rows, names, notes, strict=True)):
        y = top + step * (i + 0.5)
        canvas.text(left - 12, y + 4, name, anchor="end")
        canvas.text(left + plot + 12, y + 4, note, cls="small")
        if row.margin:
            canvas.line(px(-row.margin), y - 9, px(-row.margin), y + 9, "line s1")
        if row.delta is None:
            canvas.text(px(0), y + 4, "–", cls="soft", anchor="middle")
            continue
        canvas.line(px(row.low), y, px(row.high), y, "line s0")
        canvas.marker(px(row.delta), y, 0, f"{row.name}: {note}")
    return canvas.render("; ".join(f"{r.name}: {n}" for r, n in zip(rows, notes, strict=True)))


def _note(row: Row) -> str:
    if row.delta is None:
        return row.note
    delta, low, high = (tenth(v, sign=True) for v in (row.delta, row.low, row.high))
    shown = f"{delta} [{low}, {high}]"
    return "  ".join(part for part in (shown, row.note) if part)
