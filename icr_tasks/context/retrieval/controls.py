"""The upper bound and the two controls: gold first, a seeded shuffle, and the head of the document."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import IcrError
from ...registry import retriever
from ...settings import EMBEDDING
from ..pool import Pool
from . import bare
from .base import Retriever


@retriever("oracle", reference=True)
class Oracle(Retriever):
    """Gold evidence first, then the rest. IcrError where the benchmark does not mark gold."""

    forks = True

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """1 for gold, 0 otherwise."""
        gold = pool.gold()
        if len(gold) and not gold.any():
            raise IcrError(
                "retriever 'oracle' needs gold passages, which this benchmark does not mark; use bm25"
            )
        return gold.astype(float)


@retriever("random", reference=True)
class Random(Retriever):
    """A shuffle that depends on `seed`, the question and the pool, and on nothing else."""

    forks = True

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """Uniform numbers, dealt in the pool's own order so that the order of passages does not matter."""
        seed = [int(self.params.get("seed", 0)), zlib.crc32(query.encode()), zlib.crc32(pool.recipe.encode())]
        drawn = np.random.default_rng(seed).random(len(pool))
        out = np.empty(len(pool))
        if pool.groups:
            out[np.concatenate([g.members for g in pool.groups])] = drawn
        return out


@retriever("head", reference=True)
class Head(Retriever):
    """The beginning of the context: what a truncated prompt would show."""

    forks = True

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """Falling with position."""
        return -np.arange(len(pool), dtype=float)


# ---- hybrid --------------------------------------------------------------------------------------
# Reciprocal rank fusion of BM25 and an embedder: 1 / (60 + rank), summed (Cormack et al., SIGIR 2009).

RRF = 60


@retriever("hybrid", params=EMBEDDING)
class Hybrid(Retriever):
    """Both parts see the same chunks and question."""

    def __init__(self, params: dict[str, Any], engine: dict[str, Any] | None = None) -> None:
        super().__init__(params, engine)
        self.parts = [bare(name, params, engine) for name in ("bm25", "dense")]

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

    def notes(self, pool: Pool, query: str) -> dict[str, Any]:
        """As the dense part."""
        return self.parts[1].notes(pool, query)

    def describe(self) -> dict[str, Any]:
        """As the dense part."""
        return self.parts[1].describe()
