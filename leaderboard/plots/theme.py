"""How every chart looks: colours in light and dark, fonts, axes. A chart's spec names no colour of a theme, so
one spec serves both.

Colours follow Okabe and Ito, darkened on white and lightened on dark so that thin lines stay readable, and
every series also has its own marker. A picture paints its own background: an image tag follows the system's
theme, the page around it may not.
"""

from __future__ import annotations

import re
from typing import Any

LIGHT = ("#0072b2", "#c44a00", "#00805c", "#a3437f", "#9a6a00", "#3f3f9f", "#5b6770", "#8a1c1c")
DARK = ("#56b4e9", "#ff8a4c", "#2fcfa0", "#e69fcf", "#f0c04a", "#a8a8ff", "#b4bec6", "#ff8f8f")
SHAPES = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "cross",
    "triangle-down",
    "triangle-right",
    "triangle-left",
)
SERIES = len(LIGHT)
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
# White to dark blue, and vermillion - white - blue: both read without red-green vision, and in grey. The same in
# both themes: the ink in a cell follows the cell.
SEQUENTIAL = ("#f7fbff", "#9ecae1", "#3182bd", "#08306b")
DIVERGING = ("#b34200", "#f7be8c", "#f7f7f7", "#92c5de", "#055aa0")
_PAPER = {
    False: ("#ffffff", "#1f2328", "#59636e", "#e4e8ec"),
    True: ("#0d1117", "#e6edf3", "#9aa5b1", "#262d36"),
}
# Stand-ins for the colours of a theme: no chart has such a colour of its own.
_BLANK = tuple(f"#0a0b{n:02x}" for n in range(len(LIGHT) + 4))
_BLANKS = re.compile("|".join(_BLANK))


def _colours(dark: bool | None) -> tuple[str, ...]:
    """Paper, ink, soft ink and grid of a theme, then its series; None: the stand-ins."""
    return _BLANK if dark is None else _PAPER[dark] + (DARK if dark else LIGHT)


def painted(drawn: str, dark: bool) -> str:
    """A picture drawn in stand-ins in the colours of a theme."""
    colour = dict(zip(_BLANK, _colours(dark), strict=True))
    return _BLANKS.sub(lambda found: colour[found[0]], drawn)


def config(dark: bool | None) -> dict[str, Any]:
    """Vega-Lite's `config` of a theme (None: stand-ins for its colours, which `painted` replaces). Marks take
    `ink`, `soft`, `grid` (a line of the grid) and `hole` (the paper) as styles."""
    back, ink, soft, grid, *series = _colours(dark)
    axis = {
        "labelColor": soft,
        "titleColor": soft,
        "tickColor": soft,
        "domainColor": soft,
        "gridColor": grid,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": 320,
    }
    return {
        "aria": False,
        "background": back,
        "font": FONT,
        # names stand left and right of a plot; where Arial's widths are not at hand they are up to an eighth wider
        "padding": {"left": 22, "right": 34, "top": 10, "bottom": 10},
        "view": {"stroke": "transparent"},
        "title": {
            "color": ink,
            "fontSize": 14,
            "fontWeight": 600,
            "anchor": "start",
            "offset": 12,
            "lineHeight": 18,
            "subtitleColor": soft,
            "subtitleFontSize": 11,
            "subtitlePadding": 5,
        },
        "axis": axis,
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "labelColor": ink,
            "titleColor": soft,
            "titleFontWeight": "normal",
            "titleFontSize": 11,
            "labelLimit": 260,
            "symbolStrokeWidth": 2,
        },
        "header": {"labelColor": ink, "titleColor": soft},
        "range": {"category": series},
        "style": {
            "ink": {"color": ink},
            "soft": {"color": soft},
            "grid": {"color": grid},
            "hole": {"color": back},
        },
    }


def shapes(count: int) -> list[str]:
    """Markers of so many series: beyond the colours a series repeats a colour with another marker."""
    return [SHAPES[(i + i // SERIES) % SERIES] for i in range(count)] or ["circle"]
