"""Read a benchmark into items: `load("helmet_rag", "nq", "4k")`. One file here is one benchmark
(`declare.py`)."""

from __future__ import annotations

from typing import Any

from ..storage import data_root
from .base import Item, ItemSet, Unit
from .declare import all_benchmarks, get

__all__ = ["Item", "ItemSet", "Unit", "all_benchmarks", "data_root", "get", "load"]


def load(benchmark: str, dataset: str, length: str | None = None, **options: Any) -> ItemSet:
    """Items of one task. Raises IcrError for unknown names, missing, corrupt or short data (naming the fix).

    `allow_partial=True` accepts a file with fewer items than the official one; the result is then not
    `official`.
    """
    return get(benchmark).load(dataset, length, **options)
