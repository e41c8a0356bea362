"""The paper's own tables (arXiv 2601.18527) as reference rows, and a check of their arithmetic.

They are shown beside measured rows, never ranked with them. The checks need nothing but the printed numbers:
a mean of N zero-or-one scores is a whole number over N; an average is the mean of its row; a drop follows
from two scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import orjson

from ..text.printed import printed as as_printed

HALF = 0.05  # a number printed with one decimal stands for an interval of +-0.05
_EPS = 1e-9


@dataclass(frozen=True)
class Finding:
    """One contradiction. `printed` and `derived` are scores x 100, drops in per cent."""

    kind: str  # impossible | average | drop | disagree | claim
    table: str
    row: str
    column: str
    printed: float
    derived: float
    text: str


@cache
def data() -> dict[str, Any]:
    """published.json: `columns` and `tables`; a row is [model, setting, values, average, dataset (Table 11
    only)]."""
    return orjson.loads(Path(__file__).with_name("published.json").read_bytes())


def table(name: str) -> dict[str, Any]:
    """One table by its number in the paper."""
    return data()["tables"][name]


def attainable(mean: float, n: int) -> bool:
    """Whether a printed mean (x 100, one decimal) can come from `n` zero-or-one scores."""
    low, high = (mean - HALF - _EPS) * n / 100, (mean + HALF + _EPS) * n / 100
    return math.floor(high) >= math.ceil(low)


def check() -> list[Finding]:
    """Every contradiction in the published tables."""
    return [*_impossible(), *_averages(), *_drops(), *_disagreements(), *_best_rag()]


def _interval(value: float, sheet: dict[str, Any]) -> tuple[float, float]:
    """What a printed score may have been before rounding; counts of items narrow it where N is known."""
    if sheet["binary"] and attainable(value, sheet["n"]):
        n = sheet["n"]
        low, high = (value - HALF - _EPS) * n / 100, (value + HALF + _EPS) * n / 100
        return 100 * math.ceil(low) / n, 100 * math.floor(high) / n
    return value - HALF, value + HALF


def _label(row: list[Any]) -> str:
    return f"{row[0]} {row[1]}" + (f" {row[4]}" if len(row) > 4 else "")


def _impossible() -> Iterator[Finding]:
    columns = data()["columns"]
    for name in ("2", "10", "11", "12"):
        for row in table(name)["rows"]:
            for column, value in zip(table(name)["columns"], row[2], strict=True):
                sheet = columns[row[4] if len(row) > 4 else column]
                n = sheet["n"]
                if not sheet["binary"] or attainable(value, n):
                    continue
                nearest = 100 * round(value * n / 100) / n
                fits = next((m for m in range(n - 1, n - 6, -1) if attainable(value, m)), None)
                text = f"no whole number of {n} items gives {value}; nearest is {nearest:.2f}"
                text += f", N={fits} would fit" if fits else ""
                yield Finding("impossible", name, _label(row), column, value, nearest, text)


def _averages() -> Iterator[Finding]:
    for name, found in data()["tables"].items():
        for row in found["rows"]:
            if row[3] is not None:
                yield from _mean(name, row, row[2], "its own row")
    lengths = {(row[0], row[1], row[4]): row for row in table("11")["rows"]}
    for row in table("1")["rows"]:
        for dataset, value in zip(table("1")["columns"], row[2], strict=True):
            by_length = lengths[row[0], row[1], dataset]
            yield from _mean(
                "1", [row[0], row[1], row[2], value], by_length[2], f"Table 11, {dataset}", dataset
            )


def _mean(
    name: str, row: list[Any], values: list[float], source: str, column: str = "avg"
) -> Iterator[Finding]:
    mean = sum(values) / len(values)
    if abs(mean - row[3]) > 2 * HALF + _EPS:
        text = f"printed {row[3]}, the mean of {source} is {mean:.1f}"
        yield Finding("average", name, _label(row[:4]), column, row[3], mean, text)


def drop(full: float, compressed: float) -> float:
    """Relative change in per cent, negative when compression costs something."""
    return 100 * (compressed - full) / full


def _drops() -> Iterator[Finding]:
    """Table 3 follows from Table 2: a drop must follow from the printed scores or from what they may have
    been."""
    scores = {(row[0], row[1]): row[2] for row in table("2")["rows"]}
    for row in table("3")["rows"]:
        full, compressed = scores[row[0], "full"], scores[row[0], row[1]]
        derived = [drop(f, c) for f, c in zip(full, compressed, strict=True)]
        columns = zip(table("3")["columns"], row[2], derived, full, compressed, strict=True)
        for column, printed, value, f, c in columns:
            sheet = data()["columns"][column]
            (f_low, f_high), (c_low, c_high) = _interval(f, sheet), _interval(c, sheet)
            low, high = drop(f_high, c_low) - HALF, drop(f_low, c_high) + HALF
            if abs(printed - value) > HALF + _EPS and not low - _EPS <= printed <= high + _EPS:
                text = f"printed {printed}, Table 2 gives {value:.1f} ({f} -> {c})"
                yield Finding("drop", "3", _label(row), column, printed, value, text)
        mean = sum(derived) / len(derived)
        if abs(mean - row[3]) > 4 * HALF:
            text = f"printed {row[3]}, the drops of Table 2 average {mean:.1f}"
            yield Finding("drop", "3", _label(row), "avg", row[3], mean, text)


def _disagreements() -> Iterator[Finding]:
    """The same cell in two tables."""
    for first, second in combinations(("2", "10", "12"), 2):
        other = {(row[0], row[1]): row[2] for row in table(second)["rows"]}
        for row in table(first)["rows"]:
            for column, a, b in zip(
                table(first)["columns"], row[2], other.get((row[0], row[1]), row[2]), strict=True
            ):
                if a != b:
                    text = f"{a} in Table {first}, {b} in Table {second}"
                    yield Finding("disagree", f"{first}/{second}", _label(row), column, a, b, text)


def _best_rag() -> Iterator[Finding]:
    """The text: RAG@32k "achieves the highest average performance"; and no comparison with a larger budget is
    printed."""
    rows = [r for r in table("12")["rows"] if r[1].startswith("rag@")]
    means = {row[1]: sum(row[2]) / len(row[2]) for row in rows}
    best = min(means, key=lambda name: (-as_printed(means[name]), name))
    if best != "rag@32k":
        trained = max(row[3] for row in table("2")["rows"] if row[1] == "full")
        text = f"best average is {best} ({means[best]:.1f}), not rag@32k ({means['rag@32k']:.1f})"
        text += f"; best full-context model: {trained}"
        yield Finding("claim", "12", rows[0][0], best, means["rag@32k"], means[best], text)
