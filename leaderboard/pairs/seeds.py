"""One comparison out of several seeds: item scores averaged over seeds, then the leaderboard's clustered
paired test.

The test's interval covers the choice of questions. Another seed would also have given another model; with two
seeds or more, or a variance known from elsewhere, `total` adds that spread to the error, so that a lucky run is
not called an improvement. With too few seeds for either there is no verdict (`decided`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from icr_tasks.errors import IcrError

if TYPE_CHECKING:
    from icr_tasks.leaderboard.pairs.joined import Pairs
    from icr_tasks.leaderboard.stats import Effect


# Degrees of freedom of the variance over seeds below which there is no verdict: three seeds have two. With one
# (two seeds of one comparison) 12 % of equal recipes were called different (docs/training_studies.md).
LEAST = 2


@dataclass(frozen=True)
class Pooled:
    """Scores of both sides and their difference, in score units; `delta` covers questions, `total` questions
    and seeds.

    `each` holds the difference of every seed, `identical` the share of answers that are the same to the byte,
    `free` the degrees of freedom of the variance over seeds in `total`.
    """

    base: Effect
    new: Effect
    delta: Effect
    total: Effect
    each: tuple[float, ...]
    identical: float = 0.0
    free: int = 0

    @property
    def decided(self) -> bool:
        """Whether the seeds' luck is known well enough for a verdict."""
        return self.free >= LEAST

    @property
    def agree(self) -> int:
        """Seeds whose difference has the sign of the mean."""
        from icr_tasks.leaderboard.text.printed import settled

        mean = settled(self.delta.mean)
        return sum(math.copysign(1, d) == math.copysign(1, mean) for d in map(settled, self.each) if d)


def pooled(found: Sequence[Pairs], at: np.ndarray | None = None) -> Pooled:
    """One result from the pairs of each seed, over all items or those chosen by the mask `at` (shape: items).

    IcrError when a pair was refused or the seeds did not answer the same items.
    """
    first = found[0]
    for one in found:
        if one.refusals:
            raise IcrError(f"runs cannot be compared: {one.refusals[0]}")
        if len(one) != len(first) or not all(
            (getattr(one, c) == getattr(first, c)).all() for c in ("task", "item", "occ")
        ):
            raise IcrError(
                "the seeds were evaluated on different items; evaluate all of them on the same ones"
            )
    at = np.ones(len(first), bool) if at is None else at
    design = first.design(at)
    bases, news = (np.stack([getattr(p, side)[at] for p in found]) for side in ("base", "new"))
    base, new = bases.mean(0), news.mean(0)
    delta = design.effect(new - base)
    each = tuple(design.mean(row) for row in news - bases)
    same = float(np.mean([p.same[at] for p in found]))
    total = with_seeds(delta, each)
    return Pooled(design.score(base), design.score(new), delta, total, each, same, len(each) - 1)


def with_seeds(delta: Effect, each: Sequence[float], prior: tuple[float, int] | None = None) -> Effect:
    """`delta` with the variance of the mean over seeds added; degrees of freedom by Satterthwaite. One seed
    and no prior: unchanged.

    `prior` is (variance over seeds, its degrees of freedom) pooled over like comparisons: where it is larger
    than the spread of these few seeds, which may agree by luck, it counts instead; one seed has no other.

    A little wide: the seeds' own question noise is in both parts. p is never smaller than without the seeds.
    """
    if (len(each) < 2 and prior is None) or not math.isfinite(delta.se):
        return delta
    from scipy import special

    spread, free = float(np.var(each, ddof=1)) if len(each) > 1 else 0.0, len(each) - 1
    if prior is not None and (prior[0] > spread or not free):
        spread, free = prior
    seeds = spread / len(each)
    variance = delta.se**2 + seeds
    df = variance**2 / (delta.se**4 / delta.df + seeds**2 / free)
    t = delta.mean / math.sqrt(variance)
    p = max(delta.p, 2 * float(special.stdtr(df, -abs(t))))
    less = float(special.stdtr(df, t))
    return replace(
        delta, se=math.sqrt(variance), df=df, p=min(p, 1.0), p_less=less, test=f"{delta.test} and seeds"
    )
