"""The upper bound and the two controls: gold first, a seeded shuffle, and the head of the document."""

from __future__ import annotations

import zlib

import numpy as np

from ...errors import IcrError
from ..pool import Pool
from .base import Retriever


class Oracle(Retriever):
    """Gold evidence first, then the rest. IcrError where the benchmark does not mark gold."""

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """1 for gold, 0 otherwise."""
        gold = pool.gold()
        if len(gold) and not gold.any():
            raise IcrError("retriever 'oracle' needs gold passages, which only HELMET-RAG and synth mark; use bm25")
        return gold.astype(float)


class Random(Retriever):
    """A shuffle that depends on `seed`, the question and the pool, and on nothing else."""

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """Uniform numbers, dealt in the pool's own order so that the order of passages does not matter."""
        seed = [int(self.params.get("seed", 0)), zlib.crc32(query.encode()), zlib.crc32(pool.key.encode())]
        drawn = np.random.default_rng(seed).random(len(pool))
        out = np.empty(len(pool))
        if pool.groups:
            out[np.concatenate([g.members for g in pool.groups])] = drawn
        return out


class Head(Retriever):
    """The beginning of the context: what a truncated prompt would show."""

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """Falling with position."""
        return -np.arange(len(pool), dtype=float)
