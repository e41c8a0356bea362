"""How well scores order documents: NDCG@k, MRR, recall@k. Pure functions on numpy arrays.

>>> ndcg([0.1, 0.9, 0.3], [0, 1, 0])
1.0
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Scores = Sequence[float] | np.ndarray


def order(scores: Scores) -> np.ndarray:
    """Indices from best to worst; equal scores keep the order of the context (a constant score ranks by position)."""
    return np.argsort(-np.asarray(scores, float), kind="stable")


def dcg(gains: np.ndarray, k: int) -> float:
    """Sum of gain / log2(rank + 1) over the first k, ranks from 1 (linear gain)."""
    top = np.asarray(gains, float)[:k]
    return float((top / np.log2(np.arange(2, len(top) + 2))).sum())


def ndcg(scores: Scores, relevance: Scores, k: int = 10) -> float:
    """DCG over the DCG of the ideal order; NaN when nothing is relevant (nothing can be ranked well or badly)."""
    gains = np.asarray(relevance, float)
    best = dcg(np.sort(gains)[::-1], k)
    return dcg(gains[order(scores)], k) / best if best > 0 else float("nan")


def mrr(scores: Scores, gold: Scores) -> float:
    """1 / rank of the first gold document; NaN without one."""
    hits = np.flatnonzero(np.asarray(gold)[order(scores)] > 0)
    return float(1 / (hits[0] + 1)) if len(hits) else float("nan")


def recall(scores: Scores, gold: Scores, k: int = 10) -> float:
    """Share of the gold documents among the first k; NaN without gold."""
    flags = np.asarray(gold) > 0
    return float(flags[order(scores)[:k]].sum() / flags.sum()) if flags.any() else float("nan")


def random_ndcg(relevance: Scores, k: int = 10) -> float:
    """Expected NDCG@k of a random order, exactly: every place holds the mean gain."""
    gains = np.asarray(relevance, float)
    best = dcg(np.sort(gains)[::-1], k)
    return dcg(np.full(len(gains), gains.mean()), k) / best if best > 0 else float("nan")


def random_recall(gold: Scores, k: int = 10) -> float:
    """Expected recall@k of a random order."""
    n = len(np.asarray(gold))
    return min(k, n) / n if n and (np.asarray(gold) > 0).any() else float("nan")


def random_mrr(gold: Scores) -> float:
    """Expected reciprocal rank of the first gold document in a random order, exactly."""
    flags = np.asarray(gold) > 0
    n, g = len(flags), int(flags.sum())
    if not g:
        return float("nan")
    total, none_before = 0.0, 1.0
    for rank in range(1, n - g + 2):
        here = g / (n - rank + 1)
        total += none_before * here / rank
        none_before *= 1 - here
    return total


def all_metrics(scores: Scores, gold: Scores, graded: Scores | None, k: int = 10) -> dict[str, float]:
    """ndcg, mrr, recall at 1, 5, k, and ndcg_graded where the benchmark grades its passages."""
    out = {f"ndcg@{k}": ndcg(scores, gold, k), "mrr": mrr(scores, gold)}
    out |= {f"recall@{n}": recall(scores, gold, n) for n in (1, 5, k)}
    return out | ({f"ndcg_graded@{k}": ndcg(scores, graded, k)} if graded is not None else {})


def random_metrics(gold: Scores, graded: Scores | None, k: int = 10) -> dict[str, float]:
    """The expectation of `all_metrics` under a random order."""
    out = {f"ndcg@{k}": random_ndcg(gold, k), "mrr": random_mrr(gold)}
    out |= {f"recall@{n}": random_recall(gold, n) for n in (1, 5, k)}
    return out | ({f"ndcg_graded@{k}": random_ndcg(graded, k)} if graded is not None else {})
