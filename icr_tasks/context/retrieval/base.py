"""What every retriever is: a score for each chunk of a pool, given the question."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..pool import Pool


class Retriever(ABC):
    """`params` are the setting's parameters (retrieval/__init__.py), `engine` how an embedder is run."""

    forks = False  # whether several processes may rank at once: no model is loaded, no connection held

    def __init__(self, params: dict[str, Any], engine: dict[str, Any] | None = None) -> None:
        self.params, self.engine = params, engine or {}

    @abstractmethod
    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """One number a chunk, float, higher is better. Raises IcrError when it cannot work on this pool."""

    def rank(self, pool: Pool, query: str) -> np.ndarray:
        """Chunk numbers, best first. Equal scores: chunks by position, passages by content, which hides
        gold's depth."""
        if not pool.groups:
            return np.zeros(0, dtype=int)
        members = np.concatenate([group.members for group in pool.groups])
        return members[np.argsort(-self.scores(pool, query)[members], kind="stable")]

    def prepare(self, pools: Sequence[Pool], queries: Sequence[str]) -> None:
        """Do ahead, in large batches, what can be done ahead. Nothing by default."""
        return None

    def notes(self, pool: Pool, query: str) -> dict[str, Any]:
        """What a digest must say about this question on this pool (pieces, texts cut ...). Nothing by
        default."""
        return {}

    def describe(self) -> dict[str, Any]:
        """What a report must say about it besides the setting (embedder revision, instruction text ...)."""
        return {}


class Reordering(Retriever):
    """A stage over another retriever that says an order, no scores: those of its stages cannot be compared."""

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """Falling with the rank; -inf for what is not ranked."""
        out = np.full(len(pool), -np.inf)
        order = self.rank(pool, query)
        out[order] = -np.arange(len(order), dtype=float)
        return out

    @abstractmethod
    def rank(self, pool: Pool, query: str) -> np.ndarray:
        """Chunk numbers, best first."""
