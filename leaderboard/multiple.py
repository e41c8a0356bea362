"""Many rows in one ranking: p values that hold for all pairs at once.

Of many equal rows the best one stands out by chance: with a plain paired test at 5 % at least one of 12 equal
models is called worse in 69 % of boards. The studentized range (Tukey and Kramer) is the distribution of the
largest difference among k equal means; judged by it, all 12 stay together in 95 % of boards.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import special

from .stats import Effect
from .text.printed import settled

_Z = np.linspace(-8.0, 8.0, 257)
_U, _W = np.polynomial.legendre.leggauss(64)


def range_p(t: float, rows: int, df: float) -> float:
    """The probability that among `rows` equal means two differ by more than |t| standard errors of their
    difference; the plain two-sided p for two rows."""
    if not math.isfinite(t):
        return math.nan if math.isnan(t) else 0.0
    width = abs(t) * math.sqrt(2)
    if not math.isfinite(df) or df > 5000:
        return float(np.clip(1 - _range_cdf(np.array([width]), rows)[0], 0, 1))
    scale, weight = _chi(round(df, 3))
    return float(np.clip(1 - (weight * _range_cdf(width * scale, rows)).sum(), 0, 1))


def apart(effect: Effect, rows: int, alpha: float = 0.05) -> bool:
    """Whether a paired difference between two of so many ranked rows is beyond the noise of all of them."""
    p = settled(effect.p)
    if not p < alpha:
        return False
    if rows <= 2 or p * rows * (rows - 1) / 2 < alpha:
        return True
    return settled(range_p(effect.mean / effect.se, rows, effect.df)) < alpha


@lru_cache(maxsize=4096)
def _chi(df: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of sqrt(chi2 / df) and weights for means over them."""
    return np.sqrt(special.chdtri(df, (1 - _U) / 2) / df), _W / 2


def _range_cdf(width: np.ndarray, rows: int) -> np.ndarray:
    """Distribution of the range of `rows` standard normals at these widths."""
    inside = special.ndtr(_Z) - special.ndtr(_Z - width[:, None])
    density = np.exp(-_Z * _Z / 2) / math.sqrt(2 * math.pi)
    return rows * (density * inside ** (rows - 1)).sum(1) * (_Z[1] - _Z[0])
