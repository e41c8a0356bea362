"""Error rates on a simulated evaluation shaped like HELMET-RAG, and what the usual tests do there.

Population: 4 datasets x 5 lengths x 100 questions x 6 depths (one dataset 3), the same questions at every
length and depth; logit = 0.4 + question (sd 1.6) + length and depth slopes + checkpoint-by-question (sd 0.8)
+ checkpoint-by- question-by-length (sd 0.3). "No change" means that both checkpoints are draws from the same
population.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from icr_tasks.leaderboard.stats import Design

RUNS = 1500
DEPTHS = (6, 3, 6, 6)
LENGTHS, QUESTIONS = 5, 100


def _labels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = [
        (f"{s}-{q}", length, s)
        for s, depths in enumerate(DEPTHS)
        for length in range(LENGTHS)
        for q in range(QUESTIONS)
        for _ in range(depths)
    ]
    cluster, cell, dataset = (np.array(column) for column in zip(*rows, strict=True))
    return cluster, cell, dataset


def _differences(rng: np.random.Generator, drop: float) -> np.ndarray:
    """One pair of checkpoints: new - base per item, the new one lower by `drop` logits."""
    parts = []
    for depths in DEPTHS:
        question = rng.normal(0.4, 1.6, QUESTIONS)
        slopes = np.linspace(0.4, -0.6, LENGTHS)[:, None, None] + np.linspace(0.2, -0.2, depths)
        scores = []
        for shift in (0.0, drop):
            own = question + rng.normal(0, 0.8, QUESTIONS) + rng.normal(0, 0.3, (LENGTHS, QUESTIONS)) - shift
            p = 1 / (1 + np.exp(-(own[:, :, None] + slopes)))
            scores.append(rng.random(p.shape) < p)
        parts.append((scores[1].astype(float) - scores[0]).ravel())
    return np.concatenate(parts)


@cache
def _simulated(drop: float, runs: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20260101)
    cluster, cell, dataset = _labels()
    ours, by_item = Design(cluster, cell, dataset), Design(np.arange(len(cluster)), cell, dataset)
    first = (dataset == 0) & (cell == 2)
    one_cell, cell_items = Design(cluster[first]), Design(np.arange(first.sum()))
    found = []
    for _ in range(runs):
        d = _differences(rng, drop)
        macro, single = ours.effect(d), one_cell.effect(d[first])
        low, high = macro.ci(0.9)
        found.append(
            (
                macro.p,
                by_item.effect(d).p,
                single.p,
                cell_items.effect(d[first]).p,
                macro.p_less,
                macro.mean,
                low,
                high,
            )
        )
    names = ("macro", "macro by item", "cell", "cell by item", "less", "mean", "low", "high")
    return dict(zip(names, np.array(found).T, strict=True))


def _rejected(p: np.ndarray) -> float:
    return float(np.mean(p < 0.05))


def test_ours_holds_its_level() -> None:
    found = _simulated(0.0, RUNS)
    assert 0.03 <= _rejected(found["macro"]) <= 0.07
    assert 0.03 <= _rejected(found["cell"]) <= 0.07
    assert 0.03 <= _rejected(found["less"]) <= 0.07
    covered = np.mean((found["low"] <= 0) & (found["high"] >= 0))
    assert 0.87 <= covered <= 0.93


def test_pairing_items_without_clusters_raises_false_alarms() -> None:
    found = _simulated(0.0, RUNS)
    assert _rejected(found["macro by item"]) > 0.20
    assert _rejected(found["cell by item"]) > 0.10


def test_a_real_drop_is_found() -> None:
    found = _simulated(0.2, 300)
    assert -0.04 < found["mean"].mean() < -0.02
    assert _rejected(found["less"]) > 0.75


def test_sign_flips_hold_their_level_with_ten_clusters() -> None:
    rng = np.random.default_rng(1)
    p = []
    for _ in range(1000):
        sizes = rng.integers(1, 30, 10)
        cluster = np.repeat(np.arange(10), sizes)
        d = np.repeat(rng.normal(0, 1, 10), sizes) + rng.normal(0, 0.5, sizes.sum())
        p.append(Design(cluster).effect(d).p)
    assert 0.02 <= _rejected(np.array(p)) <= 0.06
