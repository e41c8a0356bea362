"""How often two equal training recipes are called different: with questions alone as chance, and with seeds
as well.

    python speed/seed_spread.py

Each seed trains a model whose skill differs by a normal deviate (`spread`, in points); both recipes are the
same, so every p below 0.05 is a false alarm. 200 questions, 1500 draws a row.
"""

from __future__ import annotations

import numpy as np

from icr_tasks.leaderboard.pairs.seeds import with_seeds
from icr_tasks.leaderboard.stats import Design

ARMS = 3  # comparisons with one control, whose seeds' variance is pooled


def alarms(seeds: int, spread: float, draws: int, questions: int = 200) -> tuple[float, float, float]:
    """Share of false alarms of the test over questions, of the one over questions and seeds, and of the one
    with the variance pooled over ARMS comparisons. `spread` in score units."""
    r, design = np.random.default_rng(1), Design(np.arange(questions))
    counts = np.zeros(3)
    for _ in range(draws):
        hard = r.uniform(0.3, 0.95, questions)
        skill = spread * r.standard_normal((1 + ARMS, seeds, 1))
        right = (r.random((1 + ARMS, seeds, questions)) < np.clip(hard + skill, 0, 1)).astype(float)
        each = right[1:] - right[0]
        effect = design.effect(each[0].mean(0))
        means = each.mean(2)
        prior = float(np.mean(np.var(means, axis=1, ddof=1))), ARMS * (seeds - 1)
        own = means[0].tolist()
        tests = effect, with_seeds(effect, own), with_seeds(effect, own, prior)
        counts += [test.p < 0.05 for test in tests]
    return tuple((counts / draws).tolist())


if __name__ == "__main__":
    print("| seeds | spread of a model | questions alone | questions and seeds | pooled over arms |")
    print("|---:|---:|---:|---:|---:|")
    for seeds in (2, 3, 5):
        for spread in (0.0, 0.02, 0.05, 0.10, 0.17):
            found = " | ".join(f"{100 * x:.1f} %" for x in alarms(seeds, spread, 1500))
            print(f"| {seeds} | {100 * spread:.0f} | {found} |")
