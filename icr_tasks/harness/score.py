"""`score`, the headline of every task under one name, and `score_se`, its error with what items share counted.

lm-eval takes the standard error of a plain mean for its `_stderr` columns, as if items were independent;
`score_se` is the error of `icr board`. Of one item it is the score: the error comes from all of them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..leaderboard.stats import Design, objects

SCORE, SCORE_SE = "score", "score_se"


class Scored(float):
    """One item's score that remembers what it shares with others; adds up and prints as a number."""

    cluster: str | None
    documents: tuple[str, ...] | None

    def __new__(
        cls, value: float, cluster: str | None = None, documents: Sequence[str] | None = None
    ) -> Scored:
        self = super().__new__(cls, value)
        self.cluster = cluster
        self.documents = None if documents is None else tuple(documents)
        return self


def headline(scores: Mapping[str, float], metric: str, doc: Mapping[str, Any]) -> dict[str, float]:
    """`score` and `score_se` of an item; empty where its headline metric is missing (no judge)."""
    if metric not in scores:
        return {}
    value = float(scores[metric])
    documents = [
        str(d.get("file") or d.get("name")) if isinstance(d, Mapping) else str(d)
        for d in doc.get("documents") or ()
    ]
    return {SCORE: value, SCORE_SE: Scored(value, doc.get("cluster"), documents or None)}


def clustered_error(values: Sequence[float]) -> float:
    """Standard error of the mean of Scored values (0 to 1); NaN where it cannot be known (one cluster).

    Numbers that name no cluster count as one cluster each.
    """
    clusters = [getattr(v, "cluster", None) or f"\0{i}" for i, v in enumerate(values)]
    documents = [getattr(v, "documents", None) for v in values]
    design = Design(clusters, shared=objects(documents) if any(documents) else None)
    error = design.score(np.array([float(v) for v in values])).se
    return error if np.isfinite(error) else float("nan")
