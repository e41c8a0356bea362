"""Depth x length heat maps side by side, and their difference: the number stands in every cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..text.printed import settled
from .chart import Chart, Sheet, altair, bare, clean, filled, short, unchecked
from .scales import tenth, two
from .theme import DIVERGING, SEQUENTIAL

_CELL = (54, 30)
BELOW = "depth: where the gold passage stands in the context, 0 = start"


@dataclass(frozen=True)
class Panel:
    """`cells[depth][length]` in score x 100, None where empty. `difference` panels are signed and diverge
    around 0."""

    title: str
    cells: Sequence[Sequence[float | None]]
    difference: bool = False
    n: Sequence[Sequence[int]] | None = None


@unchecked
def heat(title: str, depths: Sequence[str], lengths: Sequence[str], panels: Sequence[Panel]) -> Chart:
    """Rows are depths of the gold passage (0 = start of the context), columns lengths, one panel a setting.

    Scores share the fixed scale 0-100; differences share one symmetric scale of at least +-10.
    """
    spans = [abs(v) for p in panels if p.difference for row in p.cells for v in row if v is not None]
    span = max([10.0, *spans])
    sets = {f"d{k}": _cells(p, depths, lengths, span) for k, p in enumerate(panels)}
    frame = _drawn(
        tuple(short(clean(p.title), 34) for p in panels),
        tuple(map(clean, depths)),
        tuple(map(clean, lengths)),
    )
    words = "; ".join(
        f"{p.title}: "
        + ", ".join(
            f"depth {d} at {x} {tenth(v)}"
            for d, row in zip(depths, p.cells, strict=True)
            for x, v in zip(lengths, row, strict=True)
            if v is not None
        )
        for p in panels
    )
    return Chart(clean(title), words, filled(frame, sets, title, BELOW))


def _cells(panel: Panel, depths: Sequence[str], lengths: Sequence[str], span: float) -> list[dict[str, Any]]:
    """One row a cell."""
    data: list[dict[str, Any]] = []
    for i, depth in enumerate(depths):
        for j, length in enumerate(lengths):
            value = panel.cells[i][j]
            where = {"i": i, "j": j, "depth": clean(depth), "length": clean(length)}
            if value is None:
                data.append(where | {"text": "–", "fill": None, "ink": None, "tip": "no value"})
                continue
            fill = colour(value, span) if panel.difference else colour(value)
            n = f", N={panel.n[i][j]}" if panel.n else ""
            tip = f"{panel.title}, depth {depth}, {length}: {tenth(value, sign=panel.difference)}{n}"
            data.append(
                where
                | {
                    "text": number(value, sign=panel.difference),
                    "fill": fill,
                    "ink": ink(fill),
                    "tip": clean(tip),
                }
            )
    return data


@lru_cache(maxsize=64)
def _drawn(titles: tuple[str, ...], depths: tuple[str, ...], lengths: tuple[str, ...]) -> dict[str, Any]:
    """The panels in the data sets d0, d1 ... that `heat` fills: models under the same settings share them."""
    alt, sheet = altair(), Sheet()
    made = [_panel(alt, sheet, title, depths, lengths, first=k == 0) for k, title in enumerate(titles)]
    return bare(alt.hconcat(*made, spacing=18))


def _panel(
    alt: Any, sheet: Sheet, title: str, depths: Sequence[str], lengths: Sequence[str], *, first: bool
) -> Any:
    x = alt.X(
        "length:N",
        sort=list(lengths),
        scale=alt.Scale(padding=0.03),
        axis=alt.Axis(title="context length", labelAngle=0, domain=False, ticks=False),
    )
    y = alt.Y(
        "depth:N",
        sort=list(depths),
        scale=alt.Scale(padding=0.03),
        axis=alt.Axis(title="depth", ticks=False) if first else None,
    )
    base = sheet([])
    full = base.transform_filter("datum.fill !== null")
    empty = base.transform_filter("datum.fill === null")
    layers = [
        full.mark_rect().encode(x=x, y=y, color=alt.Color("fill:N", scale=None), tooltip="tip:N"),
        full.mark_text(fontSize=12).encode(x=x, y=y, text="text:N", color=alt.Color("ink:N", scale=None)),
        empty.mark_text(style="soft").encode(x=x, y=y, text="text:N"),
    ]
    heading = alt.Title(title, fontSize=12, fontWeight="normal", offset=6, frame="group")
    return alt.layer(*layers).properties(
        width=max(_CELL[0] * len(lengths), 130), height=_CELL[1] * len(depths), title=heading
    )


def number(value: float, *, sign: bool = False) -> str:
    """A whole number for a cell."""
    shown = f"{settled(value):{'+' if sign else ''}.0f}"
    return "0" if shown in ("+0", "-0") else shown


def colour(value: float, span: float | None = None) -> str:
    """Of a score (0-100) or, with a span, of a difference in [-span, span]; as `#rrggbb`."""
    share = settled(value) / 100 if span is None else (settled(value) / span + 1) / 2
    stops = SEQUENTIAL if span is None else DIVERGING
    at = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    k = min(int(at), len(stops) - 2)
    a, b, t = _rgb(stops[k]), _rgb(stops[k + 1]), two(at - k)
    return "#{:02x}{:02x}{:02x}".format(*(round(p + (q - p) * t) for p, q in zip(a, b, strict=True)))


def ink(fill: str) -> str:
    """Black or white, whichever is read on this colour."""
    r, g, b = ((c / 255) ** 2.2 for c in _rgb(fill))
    return "#ffffff" if 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.36 else "#111111"


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
