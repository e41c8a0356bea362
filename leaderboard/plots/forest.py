"""Forest plot: a difference and its interval per endpoint, with the margin that decides the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .chart import Chart, Sheet, altair, clean, short, unchecked
from .scales import nice_ticks, signed, tenth, two

ROWS = 30  # more rows than this are a table, not a picture
_STEP = 24


@dataclass(frozen=True)
class Row:
    """One endpoint, in points (score x 100). `delta` None: not comparable, `note` says why."""

    name: str
    delta: float | None
    low: float = 0.0
    high: float = 0.0
    margin: float | None = None
    note: str = ""


@unchecked
def forest(title: str, rows: Sequence[Row], *, x_label: str = "difference in points, new - base") -> Chart:
    """Zero line, one interval a row, the margin as a short bar at -margin, numbers and verdict at the right."""
    alt, sheet = altair(), Sheet()
    if len(rows) > ROWS:
        title = f"{title} (the first {ROWS} of {len(rows)})"
        rows = rows[:ROWS]
    ends = [0.0, *(v for r in rows if r.delta is not None for v in (r.low, r.high))]
    ends += [-r.margin for r in rows if r.margin]
    ticks = nice_ticks(min(ends), max(ends), 6)
    width, height = 320, _STEP * max(len(rows), 1)
    margins = " (bar: margin)" if any(r.margin for r in rows) else ""
    axis = alt.Axis(title=clean(x_label) + margins, grid=True, **signed(ticks))
    x = alt.X("x:Q", scale=alt.Scale(domain=[ticks[0], ticks[-1]], nice=False), axis=axis)
    names = {f"{i}": short(clean(r.name), 44) for i, r in enumerate(rows)}
    place = alt.Scale(domain=[0, len(rows) or 1], reverse=True)
    y = alt.Y("y:Q", scale=place, axis=None)
    data = [_row(i, names[f"{i}"], r) for i, r in enumerate(rows)]
    known = sheet([d for d in data if "x" in d])
    every = sheet(data or [{}])
    bars = sheet(
        [
            {"x": two(-r.margin), "y": i + 0.12, "y2": i + 0.88, "c": "1"}
            for i, r in enumerate(rows)
            if r.margin
        ]
    )
    colour = alt.Color("c:N", legend=None, scale=alt.Scale(domain=["0", "1"]))
    layers = [
        sheet([{"x": 0}]).mark_rule(style="soft").encode(x=x),
        bars.mark_rule(strokeWidth=2.5).encode(x=x, y=y, y2="y2:Q", color=colour),
        known.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour),
        known.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, color=colour, tooltip="tip:N"),
        every.mark_text(style="ink", align="right", dx=-12, fontSize=12).encode(
            x=alt.value(0), y=y, text="name:N"
        ),
        every.mark_text(style="soft", align="left", dx=12, fontSize=11).encode(
            x=alt.value(alt.ExprRef("width")), y=y, text="note:N"
        ),
    ]
    chart = alt.layer(*layers).properties(width=width, height=height)
    return Chart(clean(title), "; ".join(f"{r.name}: {_note(r)}" for r in rows), sheet.spec(chart, title))


def _row(i: int, name: str, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"y": i + 0.5, "name": name, "note": short(clean(_note(row)), 60), "c": "0"}
    if row.delta is not None:
        found |= {"x": two(row.delta), "low": two(row.low), "high": two(row.high)}
        found["tip"] = clean(f"{row.name}: {_note(row)}")
    return found


def _note(row: Row) -> str:
    if row.delta is None:
        return "– " + row.note
    delta, low, high = (tenth(v, sign=True) for v in (row.delta, row.low, row.high))
    return "  ".join(part for part in (f"{delta} [{low}, {high}]", row.note) if part)
