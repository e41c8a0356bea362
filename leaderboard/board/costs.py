"""What the items of some cells cost: tokens, seconds, dollars and KV bytes, each from the same items as a score.

Seconds are those of the engine while it generated (`wall`), times the devices it ran on (`device`); an answer
that was taken from a store or replayed keeps those of its own generation, and the time of a replay is nobody's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ledgers.load import TaskItems
from ..text.printed import settled

if TYPE_CHECKING:
    from .cells import Column
    from .rows import Row

KV = {
    "kv read": "bytes_read_per_step",
    "kv stored": "bytes_stored_per_token",
    "kv read share": "read_fraction",
}


def per_item(task: TaskItems) -> dict[str, float]:
    """Means over the items of one task; what nobody measured is left out."""
    sheet = task.sheet
    found = {"prompt": _mean(task.n_prompt_tokens), "output": _mean(task.n_out_tokens)}
    sums = {**(sheet.get("tokens") or {}), "usd": sheet.get("usd")}
    of = sheet.get("n_told") or {}  # ledgers that do not count it: all items
    for name in ("cached", "reasoning", "usd"):
        n = of.get(name, len(task))
        if n and isinstance(sums.get(name), int | float):
            found[name] = sums[name] / n
    timed, wall = sheet.get("n_timed"), (sheet.get("seconds") or {}).get("wall")
    if timed and isinstance(wall, int | float):
        found["wall"] = wall / timed
        if count := devices(sheet)[1]:
            found["device"] = found["wall"] * count
    kv = sheet.get("kv") or {}
    found |= {name: kv[key] for name, key in KV.items() if isinstance(kv.get(key), int | float)}
    if "kv stored" in found and math.isfinite(found["prompt"]):
        found["kv stored"] *= found["prompt"]  # bytes of an item's cache, not of a token's
    return {k: settled(float(v)) for k, v in found.items() if math.isfinite(v)}


def devices(sheet: Mapping[str, Any]) -> tuple[str, int]:
    """Name and number of the devices most of a task's answers were made on; ("", 0) where nobody said."""
    told = sheet.get("devices") or {}
    if not told:
        return "", 0
    name = max(told, key=lambda k: (told[k], k))
    count, _, what = name.partition(" x ")
    return (what, int(count)) if count.isdigit() else (name, 1)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def macro(row: Row, columns: Iterable[Column], name: str) -> float | None:
    """Mean an item with the weights of the score's average (datasets equal, lengths equal within one); None
    unless every cell has it."""
    by_dataset: dict[tuple[str, str], list[float]] = {}
    for c in columns:
        cell = row.cells.get(c)
        value = cell.cost.get(name) if cell is not None and cell.usable else None
        if value is None:
            return _of_run(row, columns, name)
        by_dataset.setdefault(c[:2], []).append(value)
    means = [math.fsum(v) / len(v) for v in by_dataset.values()]
    return settled(math.fsum(means) / len(means)) if means else None


def _of_run(row: Row, columns: Iterable[Column], name: str) -> float | None:
    """KV bytes of ledgers that hold them for whole runs only: known where all of the run is averaged."""
    key = KV.get(name)
    if key is None or set(columns) < set(row.cells) or len(row.heads) != 1:
        return None
    value = (row.heads[0].get("kv") or {}).get(key)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    prompt = macro(row, columns, "prompt") if name == "kv stored" else 1.0
    return None if prompt is None else settled(value * prompt)


def mean(row: Row, name: str) -> float | None:
    """Mean over all items of the row's usable cells."""
    return _weighted(row, name, lambda n, score: n)


def per_right(row: Row, name: str) -> float | None:
    """What one right answer costs: the total over the points of the same items."""
    return _weighted(row, name, lambda n, score: n * score)


def _weighted(row: Row, name: str, weight: Callable[[int, float], float]) -> float | None:
    cells = [c for c in row.cells.values() if c.effect is not None and c.status != "stale"]
    if not cells or any(name not in c.cost for c in cells):
        return None
    total = math.fsum(c.cost[name] * c.effect.n for c in cells if c.effect)
    over = math.fsum(weight(c.effect.n, c.effect.mean) for c in cells if c.effect)
    return settled(total / over) if over > 0 else None
