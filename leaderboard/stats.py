"""The one estimator: macro-weighted means and paired differences with cluster-robust errors.

    design = Design(cluster, cell, dataset)      # who shares a question, what is averaged with what
    design.effect(new - base)                    # a difference
    design.score(new)                            # an absolute score, same numbers, bounds in [0, 1]
    design.relative(new, base)                   # (new - base) / base, delta method

Weights: datasets equal, cells (lengths) equal within a dataset, items equal within a cell: the macro average
of the benchmark papers. Variance: CR1 sandwich over clusters (Miller 2024, arXiv 2411.00640, appendix A;
equal to statsmodels
`OLS(d, 1).fit(cov_type="cluster")` on one cell), summed over datasets with Satterthwaite's df.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special  # not scipy.stats: that import takes longer than a gate

from .text.printed import settled

FEW = 40  # below this many (effective) clusters the t test is too bold; sign flips hold their level
EXACT = 14  # up to 2**14 sign patterns are enumerated
DRAWS = 9999


@dataclass(frozen=True)
class Effect:
    """A mean with its error. All values in score units (0-1); `mean` is signed for differences.

    `n` items, `clusters` independent units, `p` two-sided and `p_less` one-sided (mean < 0), `test` names how p came
    about ("t", "sign-flip", "exact sign-flip"). `se` is inf when it cannot be estimated (a dataset with one
    cluster).
    """

    mean: float
    se: float
    df: float
    n: int
    clusters: int
    p: float
    p_less: float
    test: str
    bounded: bool = False

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval. For scores: within [0, 1], and Wilson on clusters where all or none is
        right."""
        if self.bounded and settled(self.mean) in (0.0, 1.0):
            edge = 1 / (1 + self.clusters / float(special.ndtri(0.5 + level / 2)) ** 2)
            return (1 - edge, 1.0) if settled(self.mean) else (0.0, edge)
        half = self.half(level)
        low, high = self.mean - half, self.mean + half
        return (max(0.0, low), min(1.0, high)) if self.bounded else (low, high)

    def in_points(self, level: float = 0.95) -> tuple[float, float, float]:
        """(mean, low, high) x 100 as every report shows them, without rounding noise."""
        low, high = self.ci(level)
        return settled(100 * self.mean), settled(100 * low), settled(100 * high)

    def half(self, level: float = 0.95) -> float:
        """Half width of the t interval: the number after "±"."""
        return (
            self.se * float(special.stdtrit(self.df, 0.5 + level / 2)) if math.isfinite(self.se) else math.inf
        )

    def mde(self, alpha: float = 0.05, power: float = 0.8) -> float:
        """Smallest true difference a one-sided test at `alpha` finds with probability `power`."""
        if not math.isfinite(self.se):
            return math.inf
        return self.se * float(special.stdtrit(self.df, 1 - alpha) + special.stdtrit(self.df, power))

    def p_noninferior(self, margin: float) -> float:
        """One-sided p of H0 "mean <= -margin"; below alpha exactly when the lower bound is above -margin."""
        if not math.isfinite(self.se):
            return 1.0
        return float(special.stdtr(self.df, -(self.mean + margin) / self.se))


def codes(values: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Integers 0..k-1 in order of first appearance, and the k values."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":  # the same by sorting, many times faster
        names, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(names), np.int64)
        rank[order] = np.arange(len(names))
        return rank[inverse], names[order].tolist()
    known: dict[Any, int] = {}
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    found = np.fromiter((known.setdefault(v, len(known)) for v in listed), np.int64, len(listed))
    return found, list(known)


class Design:
    """Which items are averaged together and which are not independent. All arguments have shape (items,).

    `cluster`: label of what items share (question, book, filings). `cell`: label of a (dataset, length).
    `dataset`: label of the dataset; None: one dataset. Datasets that share clusters (two tasks on the same books) form
    one stratum of the variance, so their covariance is counted. Raises ValueError for empty or unequal
    inputs.
    """

    def __init__(
        self, cluster: Sequence[Any], cell: Sequence[Any] | None = None, dataset: Sequence[Any] | None = None
    ) -> None:
        self.n = len(cluster)
        if not self.n or any(x is not None and len(x) != self.n for x in (cell, dataset)):
            raise ValueError(f"cluster, cell and dataset need one label an item, got {self.n} clusters")
        self.cluster, names = codes(cluster)
        self.clusters = len(names)
        dataset_code = codes(dataset)[0] if dataset is not None else np.zeros(self.n, np.int64)
        raw_cell = codes(cell)[0] if cell is not None else np.zeros(self.n, np.int64)
        self.cell = codes(dataset_code * (raw_cell.max() + 1) + raw_cell)[0]  # a cell never spans datasets
        self.cell_n = np.bincount(self.cell)
        first = np.unique(self.cell, return_index=True)[1]
        cells_in = np.bincount(dataset_code[first])
        datasets = len(cells_in)
        self.cell_weight = 1.0 / (datasets * cells_in[dataset_code[first]])
        self._whole = math.fsum(self.cell_weight)
        self._by_cell = np.argsort(self.cell, kind="stable")
        self.weight = (self.cell_weight / self.cell_n)[self.cell]
        # stratum of each cluster: connected components of datasets linked by a cluster
        parent = list(range(datasets))
        home = np.full(self.clusters, -1)
        for c, s in (
            divmod(pair, datasets) for pair in np.unique(self.cluster * datasets + dataset_code).tolist()
        ):
            if home[c] >= 0:
                parent[_root(parent, s)] = _root(parent, int(home[c]))
            home[c] = s
        roots = np.array([_root(parent, s) for s in range(datasets)])
        self.stratum = codes(roots[home])[0]
        self.stratum_g = np.bincount(self.stratum)
        self.stratum_weight = np.bincount(self.stratum[self.cluster], self.weight)

    def mean(self, d: np.ndarray) -> float:
        """Macro average of d, from exact sums: the same on every processor and in every order of the
        items."""
        return self._macro(self._cell_means(d))

    def _macro(self, means: np.ndarray) -> float:
        # divided by the weights' own sum, so that a constant averages to itself
        return math.fsum(self.cell_weight * means) / self._whole

    def _cell_means(self, d: np.ndarray) -> np.ndarray:
        """Mean of each cell, shape (cells,). Whole numbers add up exactly as they are, others with
        `math.fsum`."""
        if np.array_equal(d, np.rint(d)):
            return np.bincount(self.cell, d) / self.cell_n
        parts = np.split(d[self._by_cell], np.cumsum(self.cell_n)[:-1])
        return np.array([math.fsum(part.tolist()) for part in parts]) / self.cell_n

    def effect(self, d: np.ndarray) -> Effect:
        """Mean of d with cluster-robust error. Raises ValueError where d is not finite."""
        return self._effect(np.asarray(d, float))

    def score(self, s: np.ndarray) -> Effect:
        """Effect of an absolute score in [0, 1]; its p values mean nothing and are NaN."""
        return self._effect(np.asarray(s, float), score=True)

    def relative(self, new: np.ndarray, base: np.ndarray) -> Effect:
        """Relative change mean(new)/mean(base) - 1 by the delta method on the same items; p is that of new -
        base."""
        new, base = np.asarray(new, float), np.asarray(base, float)
        below = self.mean(base)
        if below <= 0:
            return Effect(math.nan, math.inf, 1.0, self.n, self.clusters, math.nan, math.nan, "none")
        ratio = self.mean(new) / below
        plain, line = (
            self.effect(new - base),
            self._effect((new - ratio * base) / below, score=True, floor=below),
        )
        return Effect(ratio - 1, line.se, line.df, self.n, self.clusters, plain.p, plain.p_less, plain.test)

    def _effect(self, d: np.ndarray, *, score: bool = False, floor: float = 1.0) -> Effect:
        if d.shape != (self.n,) or not np.isfinite(d).all():
            raise ValueError(
                f"need {self.n} finite values, got shape {d.shape} with {np.count_nonzero(~np.isfinite(d))} not finite"
            )
        means = self._cell_means(d)
        mean, centre = self._macro(means), d - means[self.cell]
        sums = np.bincount(self.cluster, self.weight * centre, self.clusters)
        g = self.stratum_g
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(g > 1, g / (g - 1) * np.bincount(self.stratum, sums**2), np.inf)
        part = np.maximum(part, self._floor(d, part, floor))
        variance = float(part.sum())
        if not math.isfinite(variance):
            p = math.nan if score else 1.0
            return Effect(mean, math.inf, 1.0, self.n, self.clusters, p, p, "none", score)
        se, df = math.sqrt(variance), variance**2 / float((part**2 / (g - 1)).sum())
        if score:
            return Effect(mean, se, df, self.n, self.clusters, math.nan, math.nan, "none", bounded=True)
        if settled(df) + 1 < FEW:
            p, less, test = _flip(np.bincount(self.cluster, self.weight * d, self.clusters))
        else:
            less, p, test = (
                float(special.stdtr(df, mean / se)),
                2 * float(special.stdtr(df, -abs(mean / se))),
                "t",
            )
        return Effect(mean, se, df, self.n, self.clusters, min(p, 1.0), less, test)

    def _floor(self, d: np.ndarray, part: np.ndarray, scale: float) -> np.ndarray:
        """Least variance of each stratum: one cluster's verdict, for 0/1 data and wherever nothing varies.

        Without it a dataset without a discordant item claims "±0", and one with a single flip almost that.
        """
        least = (self.stratum_weight / self.stratum_g / scale) ** 2
        whole = np.bincount(self.stratum[self.cluster], d != np.rint(d)) == 0
        return np.where(whole | (part <= 1e-24), least, 0.0)


def _root(parent: list[int], node: int) -> int:
    while parent[node] != node:
        node = parent[node]
    return node


def _flip(sums: np.ndarray) -> tuple[float, float, str]:
    """Sign-flip test on cluster sums: exact for few clusters, else 9999 seeded draws with the (1+k)/(1+B)
    rule."""
    left = np.abs(sums)
    sums = sums[
        left > 1e-12 * left.max(initial=0.0)
    ]  # what cancels within a cluster is no vote, up to rounding noise
    total, size = float(sums.sum()), len(sums)
    slack = 1e-12 * (1 + float(np.abs(sums).sum()))
    if size <= EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1)
        drawn, extra = signs @ sums, 0
    else:
        drawn = (1.0 - 2.0 * np.random.default_rng(0).integers(0, 2, (DRAWS, size))) @ sums
        extra = 1
    count = len(drawn) + extra
    both = float(np.count_nonzero(np.abs(drawn) >= abs(total) - slack) + extra) / count
    less = float(np.count_nonzero(drawn <= total + slack) + extra) / count
    return both, less, "sign-flip" if extra else "exact sign-flip"


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p values (family-wise error); NaN stays NaN and is not counted."""
    values = np.asarray(p, float)
    out = np.full(values.shape, np.nan)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    out[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return out


def benjamini_hochberg(p: Sequence[float]) -> np.ndarray:
    """Benjamini-Hochberg adjusted p values (false discovery rate); NaN stays NaN and is not counted."""
    values = np.asarray(p, float)
    out = np.full(values.shape, np.nan)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(-values[known], kind="stable")]
    ranks = np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.minimum.accumulate(values[order] * len(order) / ranks))
    return out


def clusters_needed(effect: Effect, margin: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """About how many clusters would bring the MDE down to `margin`; None when unknown."""
    mde = effect.mde(alpha, power)
    return (
        math.ceil(settled(effect.clusters * (mde / margin) ** 2))
        if math.isfinite(mde) and margin > 0
        else None
    )
