"""How well metrics put answers in the order that people's ratings give: for long answers, which are not right or
wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from . import rouge
from .answers import f1, normalize
from .normalised import subem_norm
from .words import tokens


@dataclass(frozen=True, slots=True)
class Rated:
    """An answer with a person's rating (higher is better) and the reference answers to its question."""

    question: str
    golds: tuple[str, ...]
    answer: str
    rating: float
    systems: tuple[str, ...] = ()


def values(row: Rated) -> dict[str, float]:
    """Every metric of one answer that is a number: all ROUGEs, token F1, whether a reference stands in it, and
    its length in words, the one to beat."""
    return {
        **rouge.score(row.answer, row.golds),
        "f1": f1(row.answer, row.golds),
        "subem_norm": subem_norm(row.answer, row.golds),
        "words": float(len(tokens(row.answer)) if row.answer.strip() else 0),
    }


def in_order(rows: Sequence[Rated], *, draws: int = 2000) -> dict[str, dict[str, Any]]:
    """metric -> share of pairs of answers to one question, rated differently, that it puts in the people's order
    (a tie counts half), its 95 % interval (questions resampled, fixed seed), and the pairs.

    Half of all pairs is what chance gives.
    """
    groups: dict[str, list[int]] = {}
    for n, row in enumerate(rows):
        groups.setdefault(normalize(row.question), []).append(n)
    scored = [values(row) for row in rows]
    pairs = [
        [(a, b) for a, b in combinations(group, 2) if rows[a].rating != rows[b].rating]
        for group in groups.values()
    ]
    pairs = [group for group in pairs if group]
    sizes = np.array([len(group) for group in pairs], dtype=float)
    out: dict[str, dict[str, Any]] = {}
    for name in scored[0] if scored else ():
        won = np.array([sum(_agrees(rows, scored, name)(a, b) for a, b in group) for group in pairs])
        found: dict[str, Any] = {"pairs": int(sizes.sum()), "in_order": float("nan")}
        if len(pairs):
            weights = np.random.default_rng(0).multinomial(
                len(pairs), np.full(len(pairs), 1 / len(pairs)), draws
            )
            found["in_order"] = float(won.sum() / sizes.sum())
            drawn = (weights @ won) / (weights @ sizes)
            found["in_order_ci"] = [float(v) for v in np.percentile(drawn, (2.5, 97.5))]
        out[name] = found
    return out


def _agrees(
    rows: Sequence[Rated], scored: Sequence[dict[str, float]], name: str
) -> Callable[[int, int], float]:
    def agrees(a: int, b: int) -> float:
        gap = (scored[a][name] - scored[b][name]) * (rows[a].rating - rows[b].rating)
        return 0.5 if gap == 0 else float(gap > 0)

    return agrees
