"""Read a benchmark into items: `load("helmet_rag", "nq", "4k")`.

A new benchmark is one reader module with `load(dataset, length, **options) -> ItemSet` and one line in
READERS.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import unknown
from ..storage import data_root
from .base import Item, ItemSet, Unit

__all__ = ["READERS", "Item", "ItemSet", "Unit", "data_root", "load"]

READERS: dict[str, str] = {
    "helmet_rag": ".helmet_rag",
    "infbench": ".infbench",
    "longbench_v2": ".longbench_v2",
    "loong_fin": ".loong_fin",
    "synth": ".synth",
}


def load(benchmark: str, dataset: str, length: str | None = None, **options: Any) -> ItemSet:
    """Items of one task. Raises IcrError for unknown names, missing, corrupt or short data (naming the fix).

    `allow_partial=True` accepts a file with fewer items than the official one; the result is then not `official`.
    """
    if benchmark not in READERS:
        raise unknown("benchmark", benchmark, READERS)
    return import_module(READERS[benchmark], __name__).load(dataset, length, **options)
