"""Names, order and number formats shared by every report."""

from __future__ import annotations

import math
import re

from .printed import settled

TITLES = {
    "helmet_rag": "HELMET-RAG",
    "infbench": "InfiniteBench",
    "longbench_v2": "LongBench-v2",
    "loong_fin": "Loong-Fin",
    "synth": "Synth",
}
MINUS, DASH = "\u2212", "\u2013"


def title(benchmark: str) -> str:
    """A benchmark's name for people."""
    return TITLES.get(benchmark, benchmark)


def order(benchmark: str) -> tuple[int, str]:
    """Sort key: our benchmarks in the paper's order, others after them."""
    return (list(TITLES).index(benchmark) if benchmark in TITLES else len(TITLES), benchmark)


def points(value: float, *, sign: bool = False) -> str:
    """Score x 100 with one decimal and a true minus; a dash where unknown."""
    if not math.isfinite(value):
        return DASH
    shown = settled(100 * value)
    text = f"{shown:{'+' if sign else ''}.1f}"
    if float(text) == 0 and (shown == 0 or not sign):
        return "0.0"  # with a sign, "−0.0" tells on which side of zero a bound lies
    return text.replace("-", MINUS)


def interval(bounds: tuple[float, float]) -> str:
    """`[-2.8, +0.4]` in points."""
    return f"[{points(bounds[0], sign=True)}, {points(bounds[1], sign=True)}]"


def count(number: float) -> str:
    """Thousands with thin separation: 12 345."""
    return f"{int(number):,}".replace(",", "\u2009")


def plain(text: object) -> str:
    """Untrusted text for a terminal: one line without control or text-direction characters."""
    return re.sub(
        r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in str(text))
    ).strip()
