"""Change against the first baseline over checkpoints: catches a slide that each single gate lets pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .chart import Chart, Sheet, altair, clean, short, unchecked
from .scales import nice_ticks, signed, tenth, two

STEPS, _LABELS = 200, 12


@dataclass(frozen=True)
class Step:
    """One checkpoint: difference to the first one in points, None where it cannot be compared."""

    name: str
    delta: float | None
    low: float = 0.0
    high: float = 0.0


@unchecked
def trend(title: str, steps: Sequence[Step], *, y_label: str = "points against the first") -> Chart:
    """Checkpoints in the given order, a checkpoint without a value is a gap; every so many are named below."""
    alt, sheet = altair(), Sheet()
    if len(steps) > STEPS:
        title = f"{title} (the first and the last {STEPS - 1} of {len(steps)})"
        steps = [steps[0], *steps[len(steps) - STEPS + 1 :]]
    ends = [0.0, *(v for s in steps if s.delta is not None for v in (s.low, s.high))]
    ticks = nice_ticks(min(ends), max(ends))
    width, height = min(max(64 * len(steps), 240), 640), 240
    every = -(-len(steps) // _LABELS)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.6, len(steps) - 0.4], nice=False))
    y = alt.Y(
        "y:Q",
        scale=alt.Scale(domain=[ticks[0], ticks[-1]], nice=False),
        axis=alt.Axis(title=clean(y_label), **signed(ticks)),
    )
    data, run = [], 0
    for i, step in enumerate(steps):
        row: dict[str, Any] = {"x": i}
        if i % every == 0 or i == len(steps) - 1:
            row["name"] = short(clean(step.name), 18)
        if step.delta is None:
            run += 1
        else:
            tip = f"{step.name}: {tenth(step.delta, sign=True)} [{tenth(step.low, sign=True)}, {tenth(step.high, sign=True)}]"
            row |= {
                "y": two(step.delta),
                "low": two(step.low),
                "high": two(step.high),
                "run": run,
                "tip": clean(tip),
            }
        data.append(row)
    known = sheet([d for d in data if "y" in d])
    named = sheet([d for d in data if "name" in d])
    gaps = sheet([d | {"y": 0, "text": "–"} for d in data if "y" not in d])
    colour = alt.Color("c:N", legend=None, scale=alt.Scale(domain=["0"]))
    known = known.transform_calculate(c="'0'")
    layers = [
        sheet([{"y": 0}]).mark_rule(style="soft").encode(y=y),
        known.mark_rule(strokeWidth=1.2).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        known.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, detail="run:N"),
        known.mark_point(filled=True, size=52, opacity=1).encode(x=x, y=y, color=colour, tooltip="tip:N"),
        gaps.mark_text(style="soft", dy=-8).encode(x=x, y=y, text="text:N"),
        named.mark_text(style="soft", angle=325, align="right", fontSize=11, dy=12).encode(
            x=x, y=alt.value(height), text="name:N"
        ),
    ]
    chart = alt.layer(*layers).properties(width=width, height=height)
    words = [
        f"{s.name} {tenth(s.delta, sign=True)}" if s.delta is not None else f"{s.name} no value"
        for s in steps
    ]
    return Chart(clean(title), ", ".join(words), sheet.spec(chart, title))
