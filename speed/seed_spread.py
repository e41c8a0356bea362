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


def alarms(seeds: int, spread: float, draws: int, questions: int = 200) -> tuple[float, float]:
    """Share of false alarms of the test over questions, and of the one over questions and seeds. `spread` in
    score units."""
    r, design = np.random.default_rng(1), Design(np.arange(questions))
    counts = np.zeros(2)
    for _ in range(draws):
        hard = r.uniform(0.3, 0.95, questions)
        skill = spread * r.standard_normal((2, seeds, 1))
        right = (r.random((2, seeds, questions)) < np.clip(hard + skill, 0, 1)).astype(float)
        each = right[1] - right[0]
        effect = design.effect(each.mean(0))
        counts += [effect.p < 0.05, with_seeds(effect, each.mean(1).tolist()).p < 0.05]
    return tuple((counts / draws).tolist())


if __name__ == "__main__":
    print("| seeds | spread of a model | questions alone | questions and seeds |\n|---:|---:|---:|---:|")
    for seeds in (2, 3):
        for spread in (0.0, 0.02, 0.05):
            alone, both = alarms(seeds, spread, 1500)
            print(f"| {seeds} | {100 * spread:.0f} | {100 * alone:.1f} % | {100 * both:.1f} % |")
