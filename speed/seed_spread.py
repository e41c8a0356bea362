"""How often two equal training recipes are called different: with questions alone as chance, and with seeds
as well.

    python speed/seed_spread.py

Each seed trains a model whose skill differs by a normal deviate (`spread`, in points); both recipes are the
same, so every p below 0.05 is a false alarm. 200 questions, 1500 draws a row. The second table is what the rule
for few seeds stands on: two seeds whose variance is pooled over 1 to 3 comparisons, and one seed with the spread
of an earlier study.
"""

from __future__ import annotations

import numpy as np

from icr_tasks.leaderboard.pairs.seeds import with_seeds
from icr_tasks.leaderboard.stats import Design

ARMS = 3  # comparisons with one control, whose seeds' variance is pooled
SPREADS = (0.0, 0.02, 0.05, 0.10, 0.17)
DRAWS = 1500
Counts = tuple[float, float, float]


def alarms(
    seeds: int, spread: float, draws: int, questions: int = 200, arms: int = ARMS, given: int = 0
) -> Counts:
    """Share of false alarms of the test over questions, of the one over questions and seeds, and of the one
    with a prior: the variance pooled over `arms` comparisons or, where `given` is not 0, that of an earlier
    pair of recipes with `given` degrees of freedom. `spread` in score units."""
    r, design = np.random.default_rng(1), Design(np.arange(questions))
    counts = np.zeros(3)
    for _ in range(draws):
        hard = r.uniform(0.3, 0.95, questions)

        def scores(arms: int, seeds: int, hard: np.ndarray = hard) -> np.ndarray:
            skill = spread * r.standard_normal((1 + arms, seeds, 1))
            return (r.random((1 + arms, seeds, len(hard))) < np.clip(hard + skill, 0, 1)).astype(float)

        right = scores(arms, seeds)
        each = right[1:] - right[0]
        effect = design.effect(each[0].mean(0))
        means = each.mean(2)
        if given:
            base, new = scores(1, given + 1)
            prior = float(np.var((new - base).mean(1), ddof=1)), given
        else:
            prior = float(np.mean(np.var(means, axis=1, ddof=1))), arms * (seeds - 1)
        own = means[0].tolist()
        tests = effect, with_seeds(effect, own), with_seeds(effect, own, prior)
        counts += [test.p < 0.05 for test in tests]
    return tuple((counts / draws).tolist())


def main() -> None:
    """Print both tables."""
    print("| seeds | spread of a model | questions alone | questions and seeds | pooled over arms |")
    print("|---:|---:|---:|---:|---:|")
    for seeds in (2, 3, 5):
        for spread in SPREADS:
            found = " | ".join(f"{100 * x:.1f} %" for x in alarms(seeds, spread, DRAWS))
            print(f"| {seeds} | {100 * spread:.0f} | {found} |")
    heads = [f"2 seeds, {n} comparison{'s' * (n > 1)}" for n in (1, 2, 3)]
    heads += [f"1 seed, spread given, df {n}" for n in (1, 2, 4, 6)]
    print(f"\n| spread of a model | {' | '.join(heads)} |\n|---:|" + "---:|" * len(heads))
    for spread in SPREADS:
        found = [alarms(2, spread, DRAWS, arms=n)[2] for n in (1, 2, 3)]
        found += [alarms(1, spread, DRAWS, arms=1, given=n)[2] for n in (1, 2, 4, 6)]
        print(f"| {100 * spread:.0f} | {' | '.join(f'{100 * x:.1f} %' for x in found)} |")


if __name__ == "__main__":
    main()
