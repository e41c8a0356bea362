"""Names, order and number formats shared by every report."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .printed import settled

# Of the benchmarks in ledgers that do not say it themselves; the others are learnt from the ledgers
# (`learn`).
TITLES = {
    "helmet_rag": "HELMET-RAG",
    "infbench": "InfiniteBench",
    "longbench_v2": "LongBench-v2",
    "loong_fin": "Loong-Fin",
    "synth": "Synth",
}
# Which benchmarks a suite's average is over. A suite never changes under its version: another selection is another
# version. 1: the four of arXiv 2601.18527, what every board averaged from the start.
SUITES = {"1": ("helmet_rag", "infbench", "longbench_v2", "loong_fin")}
SUITE_VERSION = "1"
SUITE = set(SUITES[SUITE_VERSION])
CHANCE: dict[tuple[str, str], float] = {("longbench_v2", "all"): 0.25, ("infbench", "mc"): 0.25}
MINUS, DASH = "\u2212", "\u2013"


def learn(sheet: Mapping[str, Any]) -> None:
    """Take title, suite and chance level of a task's benchmark from its entry in run.json."""
    benchmark, dataset = sheet.get("benchmark"), sheet.get("dataset")
    if not benchmark:
        return
    if sheet.get("title"):
        TITLES.setdefault(str(benchmark), str(sheet["title"]))
    if sheet.get("suite") in (
        True,
        SUITE_VERSION,
    ):  # True: written before suites had a version, or a plugin's
        SUITE.add(str(benchmark))
    if isinstance(sheet.get("chance"), int | float):
        CHANCE.setdefault((str(benchmark), str(dataset)), float(sheet["chance"]))


REFERENCE_KINDS = ("none", "gold")
REFERENCE_RETRIEVERS = ("oracle", "random", "head")


def deployable(setting: Mapping[str, Any]) -> bool:
    """Whether a setting of run.json is one that somebody could serve. Ledgers of older versions do not say
    it: there `gold`, `none` and the retrievers that know the answer, or look at nothing, are not."""
    told = setting.get("deployable")
    if isinstance(told, bool):
        return told
    retriever = (setting.get("params") or {}).get("retriever")
    return setting.get("kind") not in REFERENCE_KINDS and retriever not in REFERENCE_RETRIEVERS


def chance(benchmark: str, dataset: str) -> float | None:
    """Score x 100 by guessing, where guessing gives something."""
    share = CHANCE.get((benchmark, dataset))
    return None if share is None else 100 * share


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


def listed(texts: Sequence[str], most: int = 6, between: str = ", ") -> str:
    """The first few, and how many there are more."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more


def plain(text: object) -> str:
    """Untrusted text for a terminal: one line without control or text-direction characters."""
    return re.sub(
        r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in str(text))
    ).strip()


def shortened(text: str, most: int = 96) -> str:
    """A long name with its middle left out."""
    head = (most - 3) // 2
    return text if len(text) <= most else f"{text[:head]} … {text[-(most - 3 - head) :]}"


def number(value: float, *, sign: bool = False) -> str:
    """One decimal, a true minus, no minus zero."""
    text = f"{settled(value):{'+' if sign else ''}.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def estimate(value: float, low: float, high: float, *, sign: bool = False) -> str:
    """A value with its interval: `64.0 ±1.9`, or `91.0 [80.2, 100.0]` where the sides are not equal."""
    below, above = value - low, high - value
    if settled(abs(below - above)) < 0.05:
        return f"{number(value, sign=sign)} ±{number(above)}"
    return f"{number(value, sign=sign)} [{number(low, sign=sign)}, {number(high, sign=sign)}]"


def amount(value: float, unit: str) -> str:
    """A cost for people: bytes with binary prefixes, everything else with three digits."""
    value = settled(value)
    if unit == "B":
        for size, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
            if value >= size:
                return f"{value / size:.3g} {name}"
        return f"{value:.3g} B"
    if unit == "%":
        return f"{value:.1f} %"
    if unit == "s":
        for size, name in ((7200, "h"), (120, "min")):
            if value >= size:
                return f"{value / (3600 if name == 'h' else 60):.3g} {name}"
    return si(value) + (f" {unit}" if unit else "")


def si(value: float) -> str:
    """Three digits with a unit: 14336 -> 14.3k."""
    value = settled(value)
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def size(value: float) -> str:
    """A token or byte count where powers of two are whole: 4096 -> 4k, 1048576 -> 1M, 530 -> 530."""
    for unit, name in ((1024**2, "M"), (1024, "k")):
        if value >= unit and value % unit == 0:
            return f"{int(value // unit)}{name}"
    return si(value)


def coordinate(value: float) -> str:
    """A coordinate: at most two decimals, no trailing zeros, no minus zero."""
    text = f"{settled(value):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
