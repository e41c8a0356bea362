"""Score against what it costs: measured KV bytes or prompt tokens, so that RAG and compression share one
picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..text.printed import figures, printed
from .canvas import Canvas, nice_ticks, num, short, si, spread, tenth, width


@dataclass(frozen=True)
class Dot:
    """One row of the board. `x` is a cost (> 0, lower is better), scores x 100; `kind` chooses marker and
    colour."""

    name: str
    kind: str
    x: float
    mean: float
    low: float
    high: float


def front(dots: Sequence[Dot]) -> list[Dot]:
    """Dots that no other dot beats in both cost and score, by cost; of dots that print alike the first by
    name."""
    best, found = -math.inf, []
    for dot in sorted(dots, key=lambda d: (figures(d.x), -printed(d.mean), d.name)):
        if printed(dot.mean) > best:
            best = printed(dot.mean)
            found.append(dot)
    return found


def pareto(title: str, dots: Sequence[Dot], *, x_label: str, y_label: str = "score x 100") -> str:
    """SVG. x is logarithmic; dots on the front are filled and joined; full-context rows draw a dashed
    reference line."""
    dots = sorted(dots, key=lambda d: d.name)  # labels of dots at one height stand in this order
    kinds = list(dict.fromkeys(d.kind for d in sorted(dots, key=lambda d: d.kind)))
    names = [short(d.name, 40) for d in dots]
    left, top, plot, tall = 50, 44, 380, max(280, 17 * len(dots))
    size = (int(left + plot + max([90.0, *(width(n, 11) + 40 for n in names)])), top + tall + 48)
    canvas = Canvas(size, title)
    canvas.text(left, 22, title, cls="title")
    lo, hi = math.log10(min(d.x for d in dots)), math.log10(max(d.x for d in dots))
    pad = max(0.12, 0.06 * (hi - lo))
    lo, hi = lo - pad, hi + pad
    ticks = [t for t in nice_ticks(0, min(100.0, max(d.high for d in dots))) if t <= 100]
    bottom = top + tall

    def px(x: float) -> float:
        return left + plot * (math.log10(x) - lo) / (hi - lo)

    def py(y: float) -> float:
        return bottom - tall * min(max(y, 0), ticks[-1]) / ticks[-1]

    for t in ticks:
        canvas.line(left, py(t), left + plot, py(t), "grid")
        canvas.text(left - 8, py(t) + 4, num(t), cls="soft small", anchor="end")
    for x in _decades(lo, hi):
        canvas.line(px(x), top, px(x), bottom, "grid")
        canvas.text(px(x), bottom + 16, si(x), cls="soft small", anchor="middle")
    canvas.text(
        left + plot / 2,
        size[1] - 10,
        f"{x_label}, log scale, less is better",
        cls="soft small",
        anchor="middle",
    )
    canvas.text(14, (top + bottom) / 2, y_label, cls="soft small", anchor="middle", turn=-90)
    for dot in dots:
        if dot.kind == "full":
            canvas.line(left, py(dot.mean), left + plot, py(dot.mean), "axis dash")
    best = front(dots)
    canvas.path([(px(d.x), py(d.mean)) for d in best], "thin axis")
    where = spread([py(printed(d.mean)) for d in dots], 15, top, bottom)
    for dot, name, y in zip(dots, names, where, strict=True):
        series = kinds.index(dot.kind)
        canvas.line(px(dot.x), py(dot.low), px(dot.x), py(dot.high), f"thin s{series % 8}")
        tip = f"{dot.name}: {tenth(dot.mean)} [{tenth(dot.low)}, {tenth(dot.high)}] at {si(dot.x)}"
        canvas.marker(px(dot.x), py(dot.mean), series, tip, hollow=dot not in best)
        canvas.path([(px(dot.x) + 7, py(dot.mean)), (left + plot + 6, y)], "grid")
        canvas.marker(left + plot + 14, y, series, hollow=dot not in best)
        canvas.text(left + plot + 24, y + 4, name, cls="small")
    return canvas.render("; ".join(f"{d.name}: {tenth(d.mean)} at {si(d.x)}" for d in dots))


def _decades(lo: float, hi: float) -> list[float]:
    """Ticks 1, 2, 5 per decade, fewer over a wide range."""
    steps = (1, 2, 5) if hi - lo < 2.5 else (1,)
    found = [m * 10.0**k for k in range(math.floor(lo), math.ceil(hi) + 1) for m in steps]
    return [x for x in found if lo <= math.log10(x) <= hi]
