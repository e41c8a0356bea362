"""Means over items of what an engine measured about each (KV bytes, shares, rates), for run.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Means:
    """Means and maxima of all numbers in records, nested ones as `outer.inner`; booleans count as 0 and 1."""

    def __init__(self) -> None:
        self.n = 0
        self.largest: dict[str, float] = {}
        self._sums: dict[str, list[float]] = {}

    def add(self, record: dict[str, Any]) -> None:
        """Count one record; what is not a number is skipped."""
        self.n += 1
        for name, value in _numbers(record, ""):
            total = self._sums.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1
            self.largest[name] = max(value, self.largest.get(name, value))

    def merge(self, other: Means) -> None:
        """Count the records of another one."""
        self.n += other.n
        for name, (total, n) in other._sums.items():
            mine = self._sums.setdefault(name, [0.0, 0])
            mine[0] += total
            mine[1] += n
            self.largest[name] = max(other.largest[name], self.largest.get(name, other.largest[name]))

    def means(self) -> dict[str, float]:
        """Name -> mean over the records that have it; `n_items` counts records."""
        return {"n_items": self.n, **{name: total / n for name, (total, n) in self._sums.items()}}


def _numbers(record: dict[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and value == value:
            yield prefix + name, value
