"""BM25 by bm25s (Lucene's formula, k1 1.5, b 0.75, English stop words). Needs no model; indexes live in memory.

A character of a script without blanks (Chinese, Japanese, Thai ...) is a word of its own: a sentence of them as one word
would be found by nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...errors import IcrError, install_hint
from ...metrics.unspaced import spaced
from ...registry import retriever
from ...storage import Lru
from ..pool import Group, Pool
from .base import Retriever

_WORD = re.compile(r"\w+")
_SEPARATED = {n: " " for n in range(128) if not _WORD.match(chr(n))}  # what `_WORD` leaves out, as spaces


class _Terms(NamedTuple):
    """Words of a group's chunks, hashed (int64) and joined; `bounds` delimits the chunks (n + 1 entries)."""

    hashes: np.ndarray
    bounds: np.ndarray


class _Index(NamedTuple):
    engine: Any  # bm25s.BM25
    vocabulary: np.ndarray  # sorted word hashes
    order: np.ndarray  # index row -> chunk number


_TERMS: Lru[str, _Terms] = Lru(128 << 20)
_INDEXES: Lru[str, _Index] = Lru(256 << 20)


@retriever("bm25")
class BM25(Retriever):
    """A pool is indexed once however many questions share it (up to 256 MB of indexes, then the oldest
    go)."""

    forks = True

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """BM25 scores; zeros for a question without a known word."""
        if not len(pool):
            return np.zeros(0)
        index = self._index(pool)
        words = _hash(query)
        at = np.searchsorted(index.vocabulary, words).clip(max=len(index.vocabulary) - 1)
        ids = at[index.vocabulary[at] == words]
        out = np.zeros(len(pool))
        if len(ids):
            out[index.order] = index.engine.get_scores_from_ids(ids.tolist())
        return out

    def _index(self, pool: Pool) -> _Index:
        # Passages keep their order inside the group, so pools that differ only in order share an index.
        found = _INDEXES.get(pool.key)
        members = np.concatenate([g.members for g in pool.groups])
        if found is None:
            found = _build([_terms(pool, group) for group in pool.groups])
            scores = found.engine.scores
            nbytes = sum(scores[k].nbytes for k in ("data", "indices", "indptr")) + found.vocabulary.nbytes
            _INDEXES.put(pool.key, found, nbytes)
        return found._replace(order=members)


@lru_cache(maxsize=1)
def package() -> tuple[Any, frozenset[str]]:
    """(bm25s, its English stop words)."""
    try:
        import bm25s
        from bm25s.stopwords import STOPWORDS_EN
    except ImportError as error:
        raise IcrError(f"retriever 'bm25' needs bm25s: {install_hint('rag')}") from error
    return bm25s, frozenset(STOPWORDS_EN)


def _hash(text: str) -> np.ndarray:
    # Python's string hash: 64 bits, fast, and never stored, so that it differs between processes does not
    # matter.
    text = text.lower()
    words = text.translate(_SEPARATED).split() if text.isascii() else _WORD.findall(spaced(text))
    found = np.fromiter(map(hash, words), dtype=np.int64, count=len(words))
    stop_words = _stop_words()
    at = np.searchsorted(stop_words, found).clip(max=len(stop_words) - 1)
    return found[stop_words[at] != found]


@lru_cache(maxsize=1)
def _stop_words() -> np.ndarray:
    """Their hashes in order, int64 [n]."""
    return np.sort(np.fromiter(map(hash, package()[1]), dtype=np.int64))


def _terms(pool: Pool, group: Group) -> _Terms:
    found = _TERMS.get(group.key)
    if found is None:
        parts = [_hash(text) for text in pool.texts(group.members)]
        found = _Terms(np.concatenate(parts), np.cumsum([0, *(len(p) for p in parts)]))
        if len(pool.groups) > 1:  # a document on its own is indexed at once; in company it meets others again
            _TERMS.put(group.key, found, found.hashes.nbytes + found.bounds.nbytes)
    return found


def _build(groups: Sequence[_Terms]) -> _Index:
    vocabulary, ids = np.unique(np.concatenate([g.hashes for g in groups]), return_inverse=True)
    rows, start = [], 0
    for group in groups:
        rows += [
            ids[start + a : start + b].tolist()
            for a, b in zip(group.bounds[:-1], group.bounds[1:], strict=True)
        ]
        start += len(group.hashes)
    engine = package()[0].BM25()
    if not len(vocabulary):  # only stop words or symbols: every score is zero
        vocabulary, rows = np.zeros(1, dtype=np.int64), [[0] for _ in rows]
    engine.scores = engine.build_index_from_ids(list(range(len(vocabulary))), rows, show_progress=False)
    return _Index(engine, vocabulary, np.zeros(0, dtype=int))
