"""`titles`: what is called by its title is found by its title. Passages whose title stands in what is searched for come
first, the best of each title, then the rest as the retriever had it.

A question that compares two things names both, and a search that read a passage names the next one; word statistics
rank many a passage that only mentions the name above the page of that name (title match as a stage of its own: Nie et
al. 2019, arXiv 1909.08041).
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..pool import Pool
from .base import Reordering, Retriever

_WORD = re.compile(r"\w+")
_PLAIN = re.compile(r"\s*\([^()]*\)\s*$")  # Backstage (magazine)


class Titles(Reordering):
    """`inner` ranks; a pool without titles stays as it is."""

    def __init__(
        self, inner: Retriever, params: dict[str, Any], engine: dict[str, Any] | None = None
    ) -> None:
        super().__init__(params, engine)
        self.inner, self.forks = inner, inner.forks

    def rank(self, pool: Pool, query: str) -> np.ndarray:
        """The best chunk of each title that the question names, then the others."""
        order = self.inner.rank(pool, query)
        wanted = named([unit.title for unit in pool.units], query)
        first: dict[str, int] = {}
        for chunk in map(int, order):
            title = pool.units[pool.owner[chunk]].title
            if title in wanted:
                first.setdefault(title, chunk)
        ahead = np.fromiter(first.values(), dtype=order.dtype, count=len(first))
        return np.concatenate([ahead, order[~np.isin(order, ahead)]])

    def prepare(self, pools: Sequence[Pool], queries: Sequence[str]) -> None:
        """As the inner one."""
        self.inner.prepare(pools, queries)

    def notes(self, pool: Pool, query: str) -> dict[str, Any]:
        """As the inner one, and which titles the question names."""
        return {
            **self.inner.notes(pool, query),
            "titles": sorted(named([u.title for u in pool.units], query)),
        }

    def describe(self) -> dict[str, Any]:
        """As the inner one."""
        return self.inner.describe()


def named(titles: Sequence[str], query: str) -> set[str]:
    """Titles that stand in a text as whole words, without what they have in brackets and whatever their case; one word
    on its own only with a capital and not as the first. Of a title inside another one only the longer counts."""
    words = _WORD.findall(query)
    low = [word.lower() for word in words]
    places: dict[str, set[tuple[int, int]]] = {}
    for title in dict.fromkeys(titles):
        wanted = [word.lower() for word in _WORD.findall(_PLAIN.sub("", html.unescape(title)))]
        n = len(wanted)
        if not n:
            continue
        for at in range(len(low) - n + 1):
            if low[at : at + n] == wanted and (n > 1 or (at and words[at][0].isupper())):
                places.setdefault(title, set()).add((at, at + n))
    every = {span for spans in places.values() for span in spans}

    def inside(span: tuple[int, int]) -> bool:
        return any(a <= span[0] and span[1] <= b and (a, b) != span for a, b in every)

    return {title for title, spans in places.items() if not all(map(inside, spans))}
