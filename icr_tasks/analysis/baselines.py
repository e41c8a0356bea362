"""Orders that need no model: what a ranking must beat before it means anything."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

_WORD = re.compile(r"\w+")


def bm25(texts: Sequence[str], question: str, k1: float = 1.5, b: float = 0.75) -> np.ndarray:
    """Okapi BM25 of each document, statistics over the item's own documents. (documents,) float64."""
    docs = [Counter(_WORD.findall(t.lower())) for t in texts]
    lengths = np.array([sum(d.values()) for d in docs], float)
    mean = lengths.mean() or 1.0
    out = np.zeros(len(docs))
    for word in set(_WORD.findall(question.lower())):
        tf = np.array([d[word] for d in docs], float)
        seen = int((tf > 0).sum())
        idf = math.log(1 + (len(docs) - seen + 0.5) / (seen + 0.5))
        out += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths / mean))
    return out


BASELINES: dict[str, Callable[[Sequence[str], str, np.ndarray], np.ndarray]] = {
    "bm25": lambda texts, question, counts: bm25(texts, question),
    "length": lambda texts, question, counts: counts.astype(float),
    "position": lambda texts, question, counts: -np.arange(len(texts), dtype=float),
    "reversed": lambda texts, question, counts: np.arange(len(texts), dtype=float),
}
