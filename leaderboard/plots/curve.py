"""Score against context length: one line a row of the board, 95 % intervals, gaps drawn as gaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..text.names import size as count
from ..text.printed import printed
from .canvas import SERIES, Canvas, nice_ticks, num, short, spread, tenth, width


@dataclass(frozen=True)
class Point:
    """A mean with its interval, in score x 100; `n` items."""

    mean: float
    low: float
    high: float
    n: int = 0


@dataclass(frozen=True)
class Line:
    """A named line; `points` by context length in tokens, None where a cell is empty."""

    name: str
    points: dict[int, Point | None]


_TOP, _BOTTOM, _LEFT, _HEIGHT = 44, 44, 48, 360


def curve(
    title: str, lines: Sequence[Line], *, chance: float | None = None, y_label: str = "score x 100"
) -> str:
    """SVG. x is log2 of the length, y starts at 0. Two lines or fewer get bands, more get whiskers."""
    xs = sorted({x for line in lines for x in line.points})
    labels = [short(line.name, 44) for line in lines]
    right = max([80.0, *(width(label) + 28 for label in labels)])
    plot = max(60 * len(xs), 300)
    size = (int(_LEFT + plot + right), max(_HEIGHT, 70 + 18 * len(lines)))
    canvas = Canvas(size, title)
    canvas.text(_LEFT, 22, title, cls="title")
    low, high = _TOP, size[1] - _BOTTOM
    top = max([p.high for line in lines for p in line.points.values() if p] + [chance or 0, 1])
    ticks = [t for t in nice_ticks(0, min(top, 100.0)) if t <= 100]
    side = 18

    def px(x: int) -> float:
        if len(xs) < 2:
            return _LEFT + plot / 2
        return (
            _LEFT
            + side
            + (plot - 2 * side)
            * (math.log2(x or 1) - math.log2(xs[0] or 1))
            / (math.log2(xs[-1]) - math.log2(xs[0] or 1))
        )

    def py(y: float) -> float:
        return high - (high - low) * min(y, ticks[-1]) / ticks[-1]

    for t in ticks:
        canvas.line(_LEFT, py(t), _LEFT + plot, py(t), "grid")
        canvas.text(_LEFT - 8, py(t) + 4, num(t), cls="soft small", anchor="end")
    for x in xs:
        canvas.line(px(x), high, px(x), high + 4, "axis")
        canvas.text(px(x), high + 18, count(x), cls="soft small", anchor="middle")
    canvas.text(_LEFT + plot / 2, size[1] - 8, "context length (tokens)", cls="soft small", anchor="middle")
    canvas.text(14, (low + high) / 2, y_label, cls="soft small", anchor="middle", turn=-90)
    if chance is not None:
        canvas.line(_LEFT, py(chance), _LEFT + plot, py(chance), "axis dash")
        canvas.text(_LEFT + 4, py(chance) - 4, f"chance {num(chance)}", cls="soft small")
    for i, line in enumerate(lines):
        _draw(
            canvas,
            line,
            i,
            xs,
            px,
            py,
            bands=len(lines) <= 2,
            shift=(i - (len(lines) - 1) / 2) * min(5, 24 / max(len(lines), 1)),
        )
    _labels(canvas, lines, labels, py, _LEFT + plot, low, high)
    return canvas.render(_words(lines))


def _runs(line: Line, xs: Sequence[int]) -> list[list[tuple[int, Point]]]:
    """Stretches without a gap. A length that no point of this line has is a gap like an empty cell."""
    found: list[list[tuple[int, Point]]] = [[]]
    for x in xs:
        point = line.points.get(x)
        if point is None:
            found.append([])
        else:
            found[-1].append((x, point))
    return [run for run in found if run]


def _draw(
    canvas: Canvas, line: Line, i: int, xs: Sequence[int], px, py, *, bands: bool, shift: float
) -> None:  # type: ignore[no-untyped-def]
    shift = 0 if bands else shift
    for run in _runs(line, xs):
        if bands and len(run) > 1:
            edge = [(px(x), py(p.high)) for x, p in run] + [(px(x), py(p.low)) for x, p in reversed(run)]
            canvas.path(edge, f"band f{i % SERIES}", closed=True)
        canvas.path(
            [(px(x) + shift, py(p.mean)) for x, p in run],
            f"line s{i % SERIES}" + (" dash" if i >= SERIES else ""),
        )
        for x, p in run:
            if not bands or len(run) == 1:
                canvas.line(px(x) + shift, py(p.low), px(x) + shift, py(p.high), f"thin s{i % SERIES}")
            tip = f"{line.name}, {count(x)}: {tenth(p.mean)} [{tenth(p.low)}, {tenth(p.high)}], N={p.n}"
            canvas.marker(px(x) + shift, py(p.mean), i, tip)


def _labels(
    canvas: Canvas, lines: Sequence[Line], labels: Sequence[str], py, x: float, low: float, high: float
) -> None:  # type: ignore[no-untyped-def]
    ends = []
    for line in lines:
        last = [line.points[k] for k in sorted(line.points) if line.points[k] is not None]
        ends.append(py(printed(last[-1].mean)) if last and last[-1] else high)
    for i, (y, label) in enumerate(zip(spread(ends, 16, low, high), labels, strict=True)):
        canvas.marker(x + 8, y, i)
        canvas.text(x + 18, y + 4, label)


def _words(lines: Sequence[Line]) -> str:
    """The same content as text, for readers of the file without eyes on it."""
    rows = []
    for line in lines:
        cells = [
            f"{count(x)} {tenth(p.mean)}" if p else f"{count(x)} no value"
            for x, p in sorted(line.points.items())
        ]
        rows.append(f"{line.name}: {', '.join(cells)}")
    return "; ".join(rows)
