"""Change against the first baseline over checkpoints: catches a slide that each single gate lets pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .canvas import Canvas, nice_ticks, num, short, tenth


@dataclass(frozen=True)
class Step:
    """One checkpoint: difference to the first one in points, None where it cannot be compared."""

    name: str
    delta: float | None
    low: float = 0.0
    high: float = 0.0


def trend(title: str, steps: Sequence[Step], *, y_label: str = "points against the first") -> str:
    """SVG: checkpoints in the given order; a checkpoint without a value is a gap."""
    left, top, tall, each = 52, 44, 240, 64
    plot = each * max(len(steps), 2)
    size = (left + plot + 40, top + tall + 96)
    canvas = Canvas(size, title)
    canvas.text(left, 22, title, cls="title")
    ends = [0.0] + [v for s in steps if s.delta is not None for v in (s.low, s.high)]
    ticks = nice_ticks(min(ends), max(ends))
    bottom = top + tall

    def py(y: float) -> float:
        return bottom - tall * (y - ticks[0]) / (ticks[-1] - ticks[0])

    for t in ticks:
        canvas.line(left, py(t), left + plot, py(t), "axis" if t == 0 else "grid")
        canvas.text(left - 8, py(t) + 4, num(t) if t <= 0 else f"+{num(t)}", cls="soft small", anchor="end")
    canvas.text(14, (top + bottom) / 2, y_label, cls="soft small", anchor="middle", turn=-90)
    stretch: list[tuple[float, float]] = []
    for i, step in enumerate(steps):
        x = left + each * (i + 0.5)
        canvas.text(x + 4, bottom + 16, short(step.name, 16), cls="soft small", anchor="end", turn=-35)
        if step.delta is None:
            canvas.path(stretch, "line s0")
            stretch = []
            canvas.text(x, py(0) - 6, "–", cls="soft", anchor="middle")
            continue
        stretch.append((x, py(step.delta)))
        canvas.line(x, py(step.low), x, py(step.high), "thin s0")
    canvas.path(stretch, "line s0")
    for i, step in enumerate(steps):
        if step.delta is not None:
            tip = f"{step.name}: {tenth(step.delta, sign=True)} [{tenth(step.low, sign=True)}, {tenth(step.high, sign=True)}]"
            canvas.marker(left + each * (i + 0.5), py(step.delta), 0, tip)
    words = [
        f"{s.name} {tenth(s.delta, sign=True)}" if s.delta is not None else f"{s.name} no value"
        for s in steps
    ]
    return canvas.render(", ".join(words))
