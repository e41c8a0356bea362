"""One checkpoint in stages: the gate after every fifth of the questions, at levels that keep its alpha.

A stage may pass or fail a checkpoint at the level `levels` gives it. The levels come from the joint distribution
of the stages' estimates (a Brownian motion over the share of questions seen; Lan and DeMets 1983, spending in
proportion to the share), so the chance of calling an unchanged checkpoint REGRESSED at any stage, and that of
passing one that lost exactly the margin, both stay at alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from .gate import PASS, REGRESSED, Verdict, gate
from .joined import Pairs

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the questions, at each stage
_Z = np.linspace(-8.0, 8.0, 801)


def levels(alpha: float, shares: Sequence[float] = SHARES) -> list[float]:
    """The one-sided level of each stage; their joint chance of an error under the null is alpha."""
    step = float(_Z[1] - _Z[0])
    density = np.exp(-_Z * _Z / 2) / math.sqrt(
        2 * math.pi
    )  # of the estimate in standard errors, not stopped yet
    found: list[float] = []
    bound, before = math.inf, 0.0
    for share in shares:
        if found:
            width = math.sqrt(share - before)
            source, weight = math.sqrt(before) * _Z, density * (bound > _Z) * step
            moved = (math.sqrt(share) * _Z[:, None] - source[None, :]) / width
            kernel = np.exp(-moved * moved / 2) / (math.sqrt(2 * math.pi) * width)
            density = (kernel * weight[None, :]).sum(1) * math.sqrt(share)
        above = np.cumsum((density * step)[::-1])[::-1] - density * step / 2
        bound = float(np.interp(-alpha * (share - before), -above, _Z))
        found.append(float(special.ndtr(-bound)))
        before = share
    return found


def judge(
    pairs: Pairs,
    level: float,
    *,
    margin: float,
    benchmark_margin: float,
    margins: Mapping[str, float] | None = None,
) -> Verdict:
    """The gate at a stage's level: both its verdicts need it."""
    return gate(pairs, margin=margin, benchmark_margin=benchmark_margin, margins=margins, alpha=level)


def decided(found: Verdict) -> bool:
    """Whether nothing more has to be run."""
    return found.verdict in (PASS, REGRESSED)
