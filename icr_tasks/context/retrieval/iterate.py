"""More than one search a question: its parts (`decompose`), or again after reading what was found
(`iterate=N`).

A question of two hops names only the first: the passage that says where somebody was born does not name the
book that was asked about. The lists of all searches are merged by turns, so that the best of each stands at
the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..pool import Pool
from . import asker as askers
from .base import Reordering, Retriever

READ = 3  # chunks read before the next search


class Several(Reordering):
    """`inner` searches; `params`: decompose, iterate, asker."""

    def __init__(
        self, inner: Retriever, params: dict[str, Any], engine: dict[str, Any] | None = None
    ) -> None:
        super().__init__(params, engine)
        self.inner, self.name = inner, str(params.get("asker") or "rules")
        self.asker = askers.make(self.name, self.engine)
        self._last: tuple[Pool, str, tuple[np.ndarray, list[str]]] | None = None

    def rank(self, pool: Pool, query: str) -> np.ndarray:
        """Chunk numbers, best first."""
        return self._search(pool, query)[0]

    def queries(self, pool: Pool, query: str) -> list[str]:
        """Everything searched for, the question first."""
        return self._search(pool, query)[1]

    def _search(self, pool: Pool, query: str) -> tuple[np.ndarray, list[str]]:
        """(merged order, what was searched for); the last one is remembered, because notes follow the
        ranking."""
        if self._last is not None and self._last[0] is pool and self._last[1] == query:
            return self._last[2]
        orders = {query: self.inner.rank(pool, query)}

        def search(new: Sequence[str]) -> bool:
            new = [q for q in dict.fromkeys(new) if q.strip() and q not in orders]
            orders.update({q: self.inner.rank(pool, q) for q in new})
            return bool(new)

        if self.params.get("decompose"):
            search(self.asker.parts(query))
        titles = [unit.title for unit in pool.units if unit.title]
        for _ in range(int(self.params.get("iterate") or 0)):
            best = merged(list(orders.values()))[: READ * len(orders)]
            read = [(pool.units[pool.owner[i]].title, pool.unit(int(i)).text) for i in best]
            if not search(self.asker.further(query, read, titles)):
                break
        found = merged(list(orders.values())), list(orders)
        self._last = (pool, query, found)
        return found

    def prepare(self, pools: Sequence[Pool], queries: Sequence[str]) -> None:
        """As the inner one: later questions depend on what is found."""
        self.inner.prepare(pools, queries)

    def notes(self, pool: Pool, query: str) -> dict[str, Any]:
        """What was searched for beside the question."""
        return {**self.inner.notes(pool, query), "queries": self.queries(pool, query)[1:]}

    def describe(self) -> dict[str, Any]:
        """As the inner one, and who asks."""
        return {**self.inner.describe(), "asker": self.name}


def merged(orders: Sequence[np.ndarray]) -> np.ndarray:
    """Lists by turns: the best of each, the second of each ... without repeats."""
    if len(orders) == 1 or not len(orders[0]):
        return orders[0]
    stacked = np.stack(orders, axis=1).ravel()
    _, first = np.unique(stacked, return_index=True)
    return stacked[np.sort(first)]
