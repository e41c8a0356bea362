"""Depth x length heat maps side by side, and their difference: the number stands in every cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..text.printed import settled
from .canvas import Canvas, safe, short, tenth, width


@dataclass(frozen=True)
class Panel:
    """`cells[depth][length]` in score x 100, None where empty. `difference` panels are signed and diverge
    around 0."""

    title: str
    cells: Sequence[Sequence[float | None]]
    difference: bool = False
    n: Sequence[Sequence[int]] | None = None


_CELL = (52, 30)
# White to dark blue, and vermillion - white - blue: both read without red-green vision, and in grey.
_SEQUENTIAL = ((247, 251, 255), (158, 202, 225), (49, 130, 189), (8, 48, 107))
_DIVERGING = ((179, 66, 0), (247, 190, 140), (247, 247, 247), (146, 197, 222), (5, 90, 160))


def heat(title: str, depths: Sequence[str], lengths: Sequence[str], panels: Sequence[Panel]) -> str:
    """SVG: rows are depths (0 = start of the context), columns lengths, one panel a setting.

    Scores share the fixed scale 0-100; differences share one symmetric scale of at least +-10.
    """
    left = max((width(d, 11) for d in depths), default=0.0) + 36
    wide, tall = _CELL[0] * len(lengths), _CELL[1] * len(depths)
    room = max(wide, 150)
    size = (int(left + (room + 28) * len(panels)) + 4, 74 + tall + 34)
    canvas = Canvas(size, title)
    canvas.text(left, 22, title, cls="title")
    spans = [abs(v) for p in panels if p.difference for row in p.cells for v in row if v is not None]
    span = max([10.0, *spans])
    for k, panel in enumerate(panels):
        x0 = left + k * (room + 28)
        canvas.text(x0, 50, short(panel.title, int(room / 6.4)), cls="small")
        for i, depth in enumerate(depths):
            y = 60 + i * _CELL[1]
            if k == 0:
                canvas.text(left - 8, y + 19, depth, cls="soft small", anchor="end")
            for j in range(len(lengths)):
                _cell(
                    canvas,
                    panel,
                    i,
                    j,
                    x0 + j * _CELL[0],
                    y,
                    span,
                    f"{panel.title}, depth {depth}, {lengths[j]}",
                )
        for j, length in enumerate(lengths):
            canvas.text(x0 + (j + 0.5) * _CELL[0], 60 + tall + 16, length, cls="soft small", anchor="middle")
    canvas.text(
        left, size[1] - 8, "context length; rows: position of the gold passage, 0 = start", cls="soft small"
    )
    canvas.text(12, 60 + tall / 2, "depth", cls="soft small", anchor="middle", turn=-90)
    return canvas.render()


def _cell(canvas: Canvas, panel: Panel, i: int, j: int, x: float, y: float, span: float, name: str) -> None:
    value = panel.cells[i][j]
    w, h = _CELL
    if value is None:
        canvas.add(f'<rect class="grid" fill="none" x="{x:g}" y="{y:g}" width="{w - 2}" height="{h - 2}"/>')
        canvas.text(x + w / 2 - 1, y + 19, "–", cls="soft", anchor="middle")
        return
    value = settled(value)
    colour = _mix(_DIVERGING, (value / span + 1) / 2) if panel.difference else _mix(_SEQUENTIAL, value / 100)
    ink = "#fff" if _luminance(colour) < 0.36 else "#111"
    shown = f"{value:+.0f}" if panel.difference else f"{value:.0f}"
    n = f", N={panel.n[i][j]}" if panel.n else ""
    fill = "#{:02x}{:02x}{:02x}".format(*colour)
    canvas.add(f'<rect fill="{fill}" x="{x:g}" y="{y:g}" width="{w - 2}" height="{h - 2}">')
    canvas.parts[-1] += f"<title>{safe(f'{name}: {tenth(value)}{n}')}</title></rect>"
    canvas.text(
        x + w / 2 - 1, y + 19, "0" if shown in ("+0", "-0") else shown, anchor="middle", style=f"fill:{ink}"
    )


def _mix(stops: Sequence[tuple[int, int, int]], share: float) -> tuple[int, int, int]:
    """Colour at `share` (0-1) of a piecewise linear scale."""
    at = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    k = min(int(at), len(stops) - 2)
    a, b, t = stops[k], stops[k + 1], at - k
    return (round(a[0] + (b[0] - a[0]) * t), round(a[1] + (b[1] - a[1]) * t), round(a[2] + (b[2] - a[2]) * t))


def _luminance(colour: tuple[int, int, int]) -> float:
    r, g, b = ((c / 255) ** 2.2 for c in colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
