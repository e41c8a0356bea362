"""Scores without what a document attracts whatever is asked: the attention under a question without content is subtracted
(ICR, arXiv 2410.02642), over all heads or over retrieval heads that were chosen on other questions (QRHead, arXiv 2506.09944)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONTENT_FREE = "N/A"  # ICR's question without content
HEADS = 16  # retrieval heads, as QRHead takes of a model with a thousand
_FEWEST_CLUSTERS = 4


@dataclass
class Signal:
    """Of one item: calibrated attention of each head on each document, and what is gold.

    `mass` (layers, heads, documents); `counts` (documents,) tokens; `gold` (documents,); `graded` the same or None.
    """

    mass: np.ndarray
    counts: np.ndarray
    gold: np.ndarray
    graded: np.ndarray | None


def scores(signal: Signal) -> dict[str, np.ndarray]:
    """Summed over all heads: over a document's tokens, and per token. (documents,) each."""
    total = signal.mass.sum((0, 1))
    return {"calibrated/sum": total, "calibrated/token": total / signal.counts}


def choose(signals: Sequence[Signal], heads: int = HEADS) -> list[tuple[int, int]]:
    """(layer, head) of the heads that give the gold documents of these items the most calibrated attention."""
    strength = np.mean([s.mass[:, :, s.gold > 0].sum(-1) for s in signals], axis=0)
    best = np.argsort(-strength.round(9), axis=None, kind="stable")[: min(heads, strength.size)]
    return [(int(i) // strength.shape[1], int(i) % strength.shape[1]) for i in best]


def by_heads(signal: Signal, heads: Sequence[tuple[int, int]]) -> np.ndarray:
    """(documents,) scores from these heads alone."""
    return np.sum([signal.mass[layer, head] for layer, head in heads], axis=0)


def held_out(
    clusters: Sequence[str], signals: Sequence[Signal]
) -> tuple[list[np.ndarray], list[list[tuple[int, int]]]] | None:
    """Scores of each item from heads chosen on the other half of the questions, and the two choices; None with fewer than
    four questions."""
    names = sorted(set(clusters))
    if len(names) < _FEWEST_CLUSTERS:
        return None
    halves = [set(names[::2]), set(names[1::2])]
    chosen = [choose([s for c, s in zip(clusters, signals, strict=True) if c not in half]) for half in halves]
    found = [by_heads(s, chosen[0 if c in halves[0] else 1]) for c, s in zip(clusters, signals, strict=True)]
    return found, chosen
