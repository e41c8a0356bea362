"""Positions and numbers that charts share: labels that do not overlap, round ticks, short numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from ..text.names import coordinate, si
from ..text.names import size as count
from ..text.printed import settled

__all__ = ["count", "fullest", "labelled", "nice_ticks", "si", "signed", "spread", "tenth", "two"]


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


def two(value: float) -> float:
    """A coordinate in a spec: two decimals, so that rounding noise moves no byte of a picture."""
    return round(settled(value), 2) + 0.0


def labelled(values: dict[float, str]) -> dict[str, Any]:
    """Axis properties that print these values as these texts. The texts are ours (lengths, counts)."""
    pairs = ",".join(f"'{key:.12g}':'{text}'" for key, text in values.items())
    return {"values": list(values), "labelExpr": f"{{{pairs}}}[toString(datum.value)]"}


def signed(ticks: Sequence[float]) -> dict[str, Any]:
    """Axis properties for differences: gains have a plus."""
    return labelled({t: coordinate(t) if t <= 0 else f"+{coordinate(t)}" for t in ticks})


def fullest(
    points: Sequence[int], references: Collection[int], first: Collection[int], room: int
) -> list[int]:
    """Which of some lines or rows are shown where `room` fit, in their order. `points` says how much each has.

    Those of `first` stay, and of the references a third of the room at most; then those with the most points, other
    references last.
    """
    order = range(len(points))
    grey = sorted(references, key=lambda i: (-points[i], i))
    stay = {*first, *grey[: room // 3]}
    return sorted(sorted(order, key=lambda i: (i not in stay, i in grey, -points[i], i))[:room])
