"""Reciprocal rank fusion of BM25 and an embedder: 1 / (60 + rank), summed (Cormack et al., SIGIR 2009)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..pool import Pool
from . import make
from .base import Retriever

RRF = 60


class Hybrid(Retriever):
    """Both parts see the same chunks and question."""

    def __init__(self, params: dict[str, Any], engine: dict[str, Any] | None = None) -> None:
        super().__init__(params, engine)
        self.parts = [make(name, params, engine) for name in ("bm25", "dense")]

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """Fused scores, at most 2 / 61."""
        total = np.zeros(len(pool))
        for part in self.parts:
            total[part.rank(pool, query)] += 1 / (RRF + 1 + np.arange(len(pool)))
        return total

    def prepare(self, pools: Sequence[Pool], queries: Sequence[str]) -> None:
        """Embeds what the dense part needs."""
        for part in self.parts:
            part.prepare(pools, queries)

    def describe(self) -> dict[str, Any]:
        """As the dense part."""
        return self.parts[1].describe()
