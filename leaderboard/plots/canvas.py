"""The SVG writer under every plot: text is escaped, numbers are short and stable, colours come from a style
sheet.

Colours follow Okabe and Ito, darkened on white and lightened on dark so that thin lines stay readable, and
every series also has its own marker shape. The picture paints its own background: an image tag follows the
system's theme, the page around it may not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from ..text.escape import visible
from ..text.names import coordinate as num
from ..text.names import si as si
from ..text.names import size
from ..text.printed import settled

LIGHT = ("#0072b2", "#c44a00", "#00805c", "#a3437f", "#9a6a00", "#3f3f9f", "#5b6770", "#8a1c1c")
DARK = ("#56b4e9", "#ff8a4c", "#2fcfa0", "#e69fcf", "#f0c04a", "#a8a8ff", "#b4bec6", "#ff8f8f")
_FONT = "font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"


def _theme(colours: Sequence[str], back: str, ink: str, soft: str, grid: str) -> str:
    series = "".join(f".icr .s{i}{{stroke:{c}}}.icr .f{i}{{fill:{c}}}" for i, c in enumerate(colours))
    return (
        f".icr .bg{{fill:{back}}}.icr text{{fill:{ink}}}.icr .soft{{fill:{soft}}}.icr .grid{{stroke:{grid}}}"
        f".icr .axis{{stroke:{soft}}}.icr .hole{{fill:{back}}}{series}"
    )


STYLE = (
    f".icr text{{{_FONT};stroke:none}}.icr .title{{font-size:14px;font-weight:600}}.icr "
    f".small{{font-size:11px}}"
    ".icr .line{fill:none;stroke-width:2}.icr .thin{fill:none;stroke-width:1.2}.icr "
    ".band{stroke:none;opacity:.18}"
    ".icr .dash{stroke-dasharray:5 4}.icr .grid,.icr .axis{stroke-width:1;fill:none}"
    + _theme(LIGHT, "#ffffff", "#1f2328", "#59636e", "#e4e8ec")
    + "@media (prefers-color-scheme:dark){"
    + _theme(DARK, "#0d1117", "#e6edf3", "#9aa5b1", "#262d36")
    + "}"
)
SERIES = len(LIGHT)
count = size  # 4096 is 4k on an axis of lengths


def safe(text: object) -> str:
    """Text for element content and attributes; characters XML forbids are shown as the replacement
    character."""
    kept = "".join(
        c
        if c in "\t\n" or (c >= " " and not 0xD800 <= ord(c) <= 0xDFFF and c not in "\ufffe\uffff")
        else "\ufffd"
        for c in visible(text)
    )
    return escape(kept, {'"': "&quot;", "'": "&#39;"})


def short(text: str, limit: int) -> str:
    """Text cut to `limit` characters, with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def width(text: str, size: float = 12) -> float:
    """About how wide text is in pixels; there is no font to ask."""
    return sum(0.95 if ord(c) > 0x2E80 else 0.33 if c in "iljtf.,:;|'!() " else 0.6 for c in text) * size


@dataclass
class Canvas:
    """An SVG under construction; `size` in pixels, y grows downwards."""

    size: tuple[int, int]
    title: str
    parts: list[str] = field(default_factory=list)

    def add(self, element: str) -> None:
        """Append ready markup."""
        self.parts.append(element)

    def text(
        self,
        x: float,
        y: float,
        value: object,
        *,
        cls: str = "",
        anchor: str = "start",
        style: str = "",
        turn: float = 0,
    ) -> None:
        """Escaped text at its baseline."""
        extra = f' class="{cls}"' if cls else ""
        extra += f' text-anchor="{anchor}"' if anchor != "start" else ""
        extra += f' style="{style}"' if style else ""
        extra += f' transform="rotate({num(turn)} {num(x)} {num(y)})"' if turn else ""
        self.add(f'<text x="{num(x)}" y="{num(y)}"{extra}>{safe(value)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, cls: str) -> None:
        """A straight line."""
        self.add(f'<path class="{cls}" d="M{num(x1)} {num(y1)}L{num(x2)} {num(y2)}"/>')

    def path(self, points: Sequence[tuple[float, float]], cls: str, *, closed: bool = False) -> None:
        """A line through points."""
        if points:
            d = "M" + "L".join(f"{num(x)} {num(y)}" for x, y in points)
            self.add(f'<path class="{cls}" d="{d}{"Z" if closed else ""}"/>')

    def marker(self, x: float, y: float, series: int, tip: str = "", *, hollow: bool = False) -> None:
        """The marker of a series: circle, square, triangle, diamond ... with a hover text."""
        paint = (
            f'class="hole s{series % SERIES}" stroke-width="2"' if hollow else f'class="f{series % SERIES}"'
        )
        hover = f"<title>{safe(tip)}</title>" if tip else ""
        if series % 4 == 0:
            self.add(f'<circle cx="{num(x)}" cy="{num(y)}" r="4.5" {paint}>{hover}</circle>')
        else:
            corners = {
                1: ((-4, -4), (4, -4), (4, 4), (-4, 4)),
                2: ((0, -5.5), (5, 4), (-5, 4)),
                3: ((0, -6), (6, 0), (0, 6), (-6, 0)),
            }
            d = "M" + "L".join(f"{num(x + dx)} {num(y + dy)}" for dx, dy in corners[series % 4]) + "Z"
            self.add(f'<path d="{d}" {paint}>{hover}</path>')

    def render(self, description: str = "") -> str:
        """The whole file."""
        w, h = max(self.size[0], int(1.12 * width(self.title, 14)) + 70), self.size[1]
        about = f"<desc>{safe(description)}</desc>" if description else ""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="icr" role="img" viewBox="0 0 {w} {h}" '
            f'width="{w}" height="{h}" '
            f'aria-label="{safe(self.title)}"><title>{safe(self.title)}</title>{about}<style>{STYLE}</style>'
            f'<rect class="bg" width="{w}" height="{h}"/>'
        )
        return head + "\n" + "\n".join(self.parts) + "\n</svg>\n"


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near `wanted` that are at least `gap` apart and within [low, high] (labels at line ends)."""
    order = sorted(range(len(wanted)), key=lambda i: (settled(wanted[i]), i))
    placed = [0.0] * len(wanted)
    floor = low
    for i in order:
        placed[i] = max(wanted[i], floor)
        floor = placed[i] + gap
    ceiling = high
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high]."""
    if high <= low:
        high = low + 1
    raw = (high - low) / count
    step = 10.0 ** math.floor(math.log10(raw))
    step *= next(m for m in (1, 2, 5, 10) if step * m >= raw - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def tenth(value: float, *, sign: bool = False) -> str:
    """A score or difference with one decimal."""
    return f"{settled(value):{'+' if sign else ''}.1f}"
