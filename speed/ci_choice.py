"""Which generated tasks belong into the gate's small set `icr_ci`: by simulation, the most detection for its tokens.

    python speed/ci_choice.py                      table, the choice, and whether icr_ci is it (exit code 1 where not)
    python speed/ci_choice.py --budget 3 --draws 400

Candidates are the three generated families at every selection of four lengths, with 50 or all 100 questions (a
family's questions are the same at each length). A checkpoint's change is drawn an item by the variances of `icr plan` and
one of five regressions is put in: all tasks lose, one family loses (each in turn), or everything from 16k on loses. A
design finds it where the set's mean or a family's falls at one-sided 5 % after Holm, as in `icr gate`. The choice is the
design within the budget whose worst regression is found most often; of equal ones (two standard errors of the
simulation) the one with the fewest tokens. A set of short tasks is cheap and blind for long contexts, one long length
sees few questions: that is what the numbers weigh.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from icr_tasks.benchmarks.groups import CI
from icr_tasks.leaderboard.plan import BINARY
from icr_tasks.leaderboard.stats import Design, holm

FAMILIES = ("rag", "latent", "order")
LENGTHS = {"4k": 4096, "8k": 8192, "16k": 16384, "32k": 32768}
LONG = 16384
QUESTIONS = (50, 100)
# What is lost, in score units: by all, by one family, from LONG on.
LOSSES = {"all": 0.06, **{family: 0.14 for family in FAMILIES}, "long": 0.12}
ALPHA = 0.05


@dataclass(frozen=True)
class Candidate:
    """A selection of lengths with so many questions a family."""

    lengths: tuple[str, ...]
    questions: int

    @property
    def tokens(self) -> int:
        """Prompt tokens of one checkpoint."""
        return len(FAMILIES) * self.questions * sum(LENGTHS[n] for n in self.lengths)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of its tasks."""
        return tuple(f"icr_synth_{family}_{n}" for n in self.lengths for family in FAMILIES)


def candidates(budget: float) -> Iterator[Candidate]:
    """Every candidate of at most `budget` prompt tokens."""
    for size in range(1, len(LENGTHS) + 1):
        for lengths in combinations(LENGTHS, size):
            for questions in QUESTIONS:
                if (found := Candidate(lengths, questions)).tokens <= budget:
                    yield found


def found(candidate: Candidate, loss: str, draws: int, seed: int = 0) -> float:
    """Share of draws in which the regression is called."""
    r = np.random.default_rng([seed, candidate.questions, *map(ord, "".join(candidate.lengths) + loss)])
    q, sizes = candidate.questions, [LENGTHS[n] for n in candidate.lengths]
    shape = (len(FAMILIES), q, len(sizes))
    family, question, length = (axis.ravel() for axis in np.indices(shape))
    cluster = family * q + question
    every = Design(cluster, length, family)
    own = [Design(cluster[family == f], length[family == f]) for f in range(len(FAMILIES))]
    lost = np.zeros(shape)
    for f, name in enumerate(FAMILIES):
        lost[f] = LOSSES[loss] * (loss in ("all", name))
    if loss == "long":
        lost[:, :, [n >= LONG for n in sizes]] = LOSSES[loss]
    hits = 0
    for _ in range(draws):
        change = r.normal(0, BINARY.question**0.5, (*shape[:2], 1)) + r.normal(0, BINARY.length**0.5, shape)
        d = (change + r.normal(0, BINARY.noise**0.5, shape) - lost).ravel()
        p = [every.effect(d).p_less] + [one.effect(d[family == f]).p_less for f, one in enumerate(own)]
        hits += bool(holm(p).min() < ALPHA)
    return hits / draws


def main(argv: Sequence[str] | None = None) -> int:
    """0 where icr_ci is the choice, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=6.5, help="million prompt tokens a checkpoint")
    parser.add_argument("--draws", type=int, default=200)
    args = parser.parse_args(argv)
    rows = []
    for candidate in candidates(1e6 * args.budget):
        power = {loss: found(candidate, loss, args.draws) for loss in LOSSES}
        rows.append((min(power.values()), candidate, power))
    best = max(worst for worst, *_ in rows)
    near = best - 2 * (2 * best * (1 - best) / args.draws) ** 0.5
    choice = min((c for worst, c, _ in rows if worst >= near), key=lambda c: c.tokens)
    print("| lengths | questions | M tokens | " + " | ".join(LOSSES) + " | worst |")
    print("|---|---:|---:|" + "---:|" * (len(LOSSES) + 1))
    for worst, c, power in sorted(rows, key=lambda row: (-row[0], row[1].tokens))[:12]:
        shown = " | ".join(f"{100 * share:.0f}" for share in power.values())
        print(
            f"| {', '.join(c.lengths)} | {c.questions} | {c.tokens / 1e6:.1f} | {shown} | {100 * worst:.0f} |"
        )
    print(
        f"\nchoice: {', '.join(choice.tasks)}, {choice.questions} questions, {choice.tokens / 1e6:.1f} M tokens"
    )
    same = set(choice.tasks) == set(CI)
    print("icr_ci is that choice" if same else f"icr_ci is another set: {', '.join(CI)}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
