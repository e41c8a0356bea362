"""The one estimator: macro-weighted means and paired differences with cluster-robust errors.

    design = Design(cluster, cell, dataset)      # who shares a question, what is averaged with what
    design.effect(new - base)                    # a difference
    design.score(new)                            # an absolute score, same numbers, bounds in [0, 1]
    design.relative(new, base)                   # (new - base) / base, delta method

Weights: datasets equal, cells (lengths) equal within a dataset, items equal within a cell: the macro average
of the benchmark papers. Variance: that of `variance.py`, for clusters of any size and for items that share
documents; with equal clusters the CR1 sandwich (Miller 2024, arXiv 2411.00640, appendix A; equal to
statsmodels `OLS(d, 1).fit(cov_type="cluster")` on one cell). It is summed over datasets with Satterthwaite's
df. Interval, p, MDE and power of an effect all come from the one t distribution that `Effect` holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special  # not scipy.stats: that import takes longer than a gate

from .text.printed import settled
from .variance import LARGEST, Groups, Overlap

ENOUGH = 5  # discordant items that show how much their clusters have in common
EVEN = 20  # so many clusters of about equal weight
NEAR_EDGE = 10  # fewer (effective) right or wrong answers than this: Wilson's interval in place of the t one


@dataclass(frozen=True)
class Effect:
    """A mean with its error. All values in score units (0-1); `mean` is signed for differences.

    `n` items, `clusters` units that items share (questions, books, documents), `effective` how many equal
    units say as much; `p` two-sided and `p_less` one-sided (mean < 0), `test` names how p came about ("t",
    "identical" where nothing can have changed, "none"). `se` is inf when it cannot be estimated (a dataset
    with one cluster). `bounded`: a score in [0, 1]; `binomial`: of 0/1 values.
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
    effective: float = math.nan
    binomial: bool = False

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval. For scores: within [0, 1]; Wilson's on effective clusters where all or none is
        right, and on the effective number of answers where few are."""
        if self.bounded and settled(self.mean) in (0.0, 1.0):
            units = self.clusters if math.isnan(self.effective) else self.effective
            edge = 1 / (1 + units / float(special.ndtri(0.5 + level / 2)) ** 2)
            return (1 - edge, 1.0) if settled(self.mean) else (0.0, edge)
        if self.binomial and math.isfinite(self.se) and self.se > 0:
            # as many independent answers say as much; at the least one a cluster
            answers = self.mean * (1 - self.mean) / self.se**2
            answers = answers if math.isnan(self.effective) else max(answers, self.effective)
            if settled(answers * min(self.mean, 1 - self.mean)) < NEAR_EDGE:
                return self._wilson(answers, level)
        half = self.half(level)
        low, high = self.mean - half, self.mean + half
        return (max(0.0, low), min(1.0, high)) if self.bounded else (low, high)

    def _wilson(self, answers: float, level: float) -> tuple[float, float]:
        """Wilson's interval of a share among so many independent answers, with t in place of z; half an
        answer is allowed for on the side of the edge, where Wilson's own covers 92 % of a share of 99 %."""
        t = float(special.stdtrit(self.df, 0.5 + level / 2))
        if not math.isfinite(t):
            return 0.0, 1.0

        def bound(share: float, sign: int) -> float:
            centre, more = share + t * t / (2 * answers), t * t / (4 * answers * answers)
            half = t * math.sqrt(max(share * (1 - share), 0.0) / answers + more)
            return (centre + sign * half) / (1 + t * t / answers)

        up, down = (0.5 / answers, 0.0) if self.mean > 0.5 else (0.0, 0.5 / answers)
        return max(0.0, bound(max(0.0, self.mean - down), -1)), min(1.0, bound(min(1.0, self.mean + up), 1))

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
        if not math.isfinite(self.se) or not self.se:
            return self.se
        return self.se * float(special.stdtrit(self.df, 1 - alpha) + special.stdtrit(self.df, power))

    def p_noninferior(self, margin: float) -> float:
        """One-sided p of H0 "mean <= -margin"; below alpha exactly when the lower bound is above -margin."""
        if not math.isfinite(self.se):
            return 1.0
        if not self.se:
            return float(self.mean <= -margin)
        return float(special.stdtr(self.df, -(self.mean + margin) / self.se))


Labels = Sequence[Any] | np.ndarray


def objects(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """An array of objects, also of lists of equal length."""
    out = np.empty(len(values), object)
    out[:] = list(values)
    return out


def documents(parts: Sequence[Sequence[Any] | np.ndarray | None], sizes: Sequence[int]) -> np.ndarray | None:
    """`Design`'s argument `shared` for several tasks in a row, of these numbers of items; None where none
    names documents."""
    if all(part is None for part in parts):
        return None
    return np.concatenate(
        [objects([None] * n if p is None else p) for p, n in zip(parts, sizes, strict=True)]
    )


def codes(values: Labels) -> tuple[np.ndarray, list[Any]]:
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
    `dataset`: label of the dataset; None: one dataset. Datasets that share clusters (two tasks on the same
    books) form one stratum of the variance, so their covariance is counted. `shared`: the documents of each
    item, or None for an item without; clusters within which items share only some of several documents
    (Loong's filings) are then not taken as one. Raises ValueError for empty or unequal inputs.
    """

    def __init__(
        self,
        cluster: Labels,
        cell: Labels | None = None,
        dataset: Labels | None = None,
        shared: Sequence[Sequence[str] | None] | np.ndarray | None = None,
    ) -> None:
        self.n = len(cluster)
        if not self.n or any(x is not None and len(x) != self.n for x in (cell, dataset, shared)):
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
        strata = len(set(roots.tolist()))
        self._groups = Groups(self.weight, self.cluster, self.stratum, strata)
        self._overlaps = self._find_overlaps(shared) if shared is not None else {}
        count, effective = self._groups.count.astype(float), self._groups.effective.copy()
        for s, (_, overlap) in self._overlaps.items():
            count[s], effective[s] = overlap.count, overlap.effective
        self.clusters = int(count.sum())
        whole = self._groups.whole
        self.effective = float(whole.sum() ** 2 / (whole**2 / effective).sum())
        self._count, self._effective = count, effective
        self._least = whole**2 / (count * effective)

    def _find_overlaps(
        self, shared: Sequence[Sequence[str] | None] | np.ndarray
    ) -> dict[int, tuple[np.ndarray, Overlap]]:
        """Strata whose items all name their documents, some of them several: their rows and their
        variance."""
        found = {}
        of_item = self._groups.of_item
        for s in range(len(self._groups.count)):
            at = np.flatnonzero(of_item == s)
            sets = [shared[i] for i in at]
            named = [x for x in sets if x]
            if len(named) < len(sets) or len(at) > LARGEST or all(len(x) == 1 for x in named):
                continue
            found[s] = at, Overlap(self.weight[at], codes(self.cell[at])[0], named)
        return found

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

    def effect(self, d: np.ndarray, *, same: np.ndarray | None = None) -> Effect:
        """Mean of d with cluster-robust error. Raises ValueError where d is not finite.

        `same` marks items (shape as d) whose two answers are the same byte for byte: a dataset with no other
        item and no difference is known not to have changed, and adds no error.
        """
        return self._effect(np.asarray(d, float), same=same)

    def foreseen(self, question: np.ndarray, length: np.ndarray, noise: np.ndarray) -> Effect:
        """The error that a difference will have whose items (shape: items) vary by these variances: of what
        sticks to their question, to the question in one cell, and of the rest."""
        of_item, strata = self._groups.of_item, len(self._count)
        by_cluster = np.bincount(self.cluster, np.sqrt(question) * self.weight)
        both = codes(self.cluster * (int(self.cell.max()) + 1) + self.cell)[0]
        by_both = np.bincount(both, np.sqrt(length) * self.weight)
        stratum_of_both = np.zeros(len(by_both), np.int64)
        stratum_of_both[both] = of_item
        part = np.bincount(self.stratum, by_cluster**2, strata)
        for s, (at, overlap) in self._overlaps.items():
            part[s] = overlap.together * float(question[at].mean())
        part = part + np.bincount(stratum_of_both, by_both**2, strata)
        part = np.maximum(part + np.bincount(of_item, noise * self.weight**2, strata), 1e-12)
        # as many degrees of freedom as equal clusters that say as much
        dfs = np.maximum(self._effective - 1, 0.25)
        part = np.where(self._count < 2, np.inf, part)
        variance = float(part.sum())
        if not math.isfinite(variance):
            return Effect(0.0, math.inf, 1.0, self.n, self.clusters, 1.0, 1.0, "none", False, self.effective)
        df = variance**2 / float((part**2 / dfs).sum())
        se = math.sqrt(variance)
        return Effect(0.0, se, df, self.n, self.clusters, 1.0, 0.5, "t", False, self.effective)

    def best_p(self) -> float:
        """The smallest one-sided p that any result could have: that of all items changing by a whole point.

        Above alpha: no outcome whatever can be called a regression, so there is no use in running it.
        """
        return self._effect(np.full(self.n, -1.0)).p_less

    def score(self, s: np.ndarray) -> Effect:
        """Effect of an absolute score in [0, 1]; its p values mean nothing and are NaN."""
        return self._effect(np.asarray(s, float), score=True)

    def relative(self, new: np.ndarray, base: np.ndarray, *, same: np.ndarray | None = None) -> Effect:
        """Relative change mean(new)/mean(base) - 1 by the delta method on the same items; p is that of new -
        base, `same` as for `effect`."""
        new, base = np.asarray(new, float), np.asarray(base, float)
        below = self.mean(base)
        if below <= 0:
            return Effect(math.nan, math.inf, 1.0, self.n, self.clusters, math.nan, math.nan, "none")
        ratio = self.mean(new) / below
        plain, line = (
            self.effect(new - base, same=same),
            self._effect((new - ratio * base) / below, score=True, floor=below, same=same),
        )
        return Effect(ratio - 1, line.se, line.df, self.n, self.clusters, plain.p, plain.p_less, plain.test)

    def _effect(
        self, d: np.ndarray, *, score: bool = False, floor: float = 1.0, same: np.ndarray | None = None
    ) -> Effect:
        if d.shape != (self.n,) or not np.isfinite(d).all():
            raise ValueError(
                f"need {self.n} finite values, got shape {d.shape} with {np.count_nonzero(~np.isfinite(d))} "
                "not finite"
            )
        means = self._cell_means(d)
        mean, centre = self._macro(means), d - means[self.cell]
        part, dfs = self._groups.parts(centre)
        for s, (at, overlap) in self._overlaps.items():
            part[s], dfs[s] = overlap.part(centre[at])
        binomial = score and bool(((d == 0) | (d == 1)).all())
        part = np.maximum(part, self._floor(d, part, floor))
        if same is not None:
            changed = np.bincount(self._groups.of_item, ~np.asarray(same, bool) | (d != 0), len(part))
            part = np.where(changed == 0, 0.0, part)
        variance = float(part.sum())
        rest: dict[str, Any] = {"bounded": score, "effective": self.effective, "binomial": binomial}
        if not math.isfinite(variance):
            p = math.nan if score else 1.0
            return Effect(mean, math.inf, 1.0, self.n, self.clusters, p, p, "none", **rest)
        if variance == 0:
            return Effect(mean, 0.0, math.inf, self.n, self.clusters, 1.0, 1.0, "identical", **rest)
        se = math.sqrt(variance)
        df = float(dfs[0]) if len(dfs) == 1 else variance**2 / float((part**2 / dfs).sum())
        if score:
            return Effect(mean, se, df, self.n, self.clusters, math.nan, math.nan, "none", **rest)
        less, p = float(special.stdtr(df, mean / se)), 2 * float(special.stdtr(df, -abs(mean / se)))
        return Effect(mean, se, df, self.n, self.clusters, min(p, 1.0), less, "t", **rest)

    def _floor(self, d: np.ndarray, part: np.ndarray, scale: float) -> np.ndarray:
        """Least variance of each stratum: one average cluster's verdict, for 0/1 data and wherever nothing
        varies.

        Without it a dataset without a discordant item claims "±0", and one with a single flip almost that.
        Where clusters are few or unequal one of them may be most of the data: from `ENOUGH` discordant items
        on they speak for themselves, and the floor shrinks with their number.
        """
        least = self._least / scale**2
        short = part < least
        if not short.any():
            return least * 0
        of_item = self._groups.of_item
        whole = np.bincount(of_item, d != np.rint(d), len(part)) == 0
        usual = np.max([np.bincount(of_item, d == v, len(part)) for v in (-1.0, 0.0, 1.0)], axis=0)
        odd = np.bincount(of_item, minlength=len(part)) - usual  # not of the most frequent verdict
        even = (self._effective >= 0.9 * self._count) & (self._count >= EVEN)
        shrunk = np.where(even, least, least * np.minimum(1.0, ENOUGH / np.maximum(odd, 1)))
        return np.where(part <= 1e-24, least, np.where(whole, shrunk, 0.0))


def _root(parent: list[int], node: int) -> int:
    while parent[node] != node:
        node = parent[node]
    return node


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
