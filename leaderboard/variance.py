"""The variance of a weighted mean of items that are not independent, and its degrees of freedom.

Working model: what two items share (a question, a book, filings) adds a common effect, everything else is
noise: Var(d) = noise * I + shared * K. Both parts are estimated by moments from the residuals, so the error
of a mean is right for equal groups, for groups of very different size and for items that share filings with
some of their neighbours only. With groups of equal size and make-up this is the CR1 sandwich with G - 1
degrees of freedom, to the last digit; else the two are averaged, but never below the sandwich, and degrees
of freedom follow Satterthwaite and Bell and McCaffrey (2002): twice the squared expectation over the
variance of the estimator, under the estimated model.

Where one group outweighs the rest the data cannot tell how much its items share. Then the upper end of what
is compatible with the data is taken (`CAUTION` standard errors above the estimate): wide, and never too
short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

CAUTION = 0.3  # standard errors of the estimated variance that are added where it is poorly known
LARGEST = 2500  # items of one stratum whose shared documents are looked at pair by pair
_TINY = 1e-12  # relative size of what is rounding noise
_QUANTILE = 0.975


class Groups:
    """Items in groups, groups in strata. `weight` and `group` have shape (items,), `stratum` (groups,).

    `parts(residual)` gives variance and degrees of freedom of sum(weight * d) in each stratum, shape
    (strata,); inf where a stratum has one group only. The sums of one stratum, as most cells have, are plain
    numbers inside: the same arithmetic at a third of the time of arrays of length 1.
    """

    def __init__(self, weight: np.ndarray, group: np.ndarray, stratum: np.ndarray, strata: int) -> None:
        self.weight, self.group, self.stratum, self.strata = weight, group, stratum, strata
        self._one = strata == 1
        self._choose: Any = _chosen if self._one else np.where
        self.count = np.bincount(stratum, minlength=strata)
        self.of_item = stratum[group]
        g = len(stratum)
        w, a = np.bincount(group, weight, g), np.bincount(group, weight**2, g)
        self.w, self.a, self._w2 = w, a, w**2
        whole = self._sum(w)
        self.whole = np.atleast_1d(whole)
        self.a_sum, self.w2_sum = self._sum(a), self._sum(self._w2)
        self._groups = self.count[0] if self._one else self.count
        with np.errstate(divide="ignore", invalid="ignore"):
            self.effective = _snapped(self.whole**2 / self.w2_sum, self.count)
            share = w / self._each(whole)
            inverse = np.where(w > 0, 1 / w, 0.0)
            # expectations of the two sums of squares under a unit of noise and a unit of shared effect
            self._between_noise = (
                self._sum(a * (1 - 2 * share) * inverse) + self.a_sum / whole
            )  # E[Q1 | noise]
            self._between_shared = self._sum(w * (1 - 2 * share)) + self.w2_sum / whole  # E[Q1 | shared]
            within = self._sum(w - a * inverse)  # E[Q2 | noise]
            self._within = self._choose(within > _TINY * whole, within, 0.0)
            self._spread = self._sum(a * np.maximum(0.0, 1 - a * inverse**2))  # Var(Q2) / (2 noise^2)
            self._c1 = self.w2_sum / self._between_shared
            c2 = self._choose(
                self._within > 0, (self.a_sum - self._c1 * self._between_noise) / self._within, 0.0
            )
            self._c2 = self._choose(abs(c2) * whole > 1e-9 * self.a_sum, c2, 0.0)
        root = np.sqrt(np.maximum(w, 0.0))
        self._inverse, self._inverse_root = inverse, inverse * root
        b = share * self._inverse_root
        self._b, self._b2, self._q = b, b * b, self._sum(b * b)

    def _sum(self, values: np.ndarray) -> Any:
        """Sum over the groups of each stratum, added one after the other."""
        found = np.bincount(self.stratum, values, self.strata)
        return found[0] if self._one else found

    def _each(self, values: Any) -> Any:
        """For each group the value of its stratum."""
        return values if self._one else values[self.stratum]

    def parts(self, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variance and degrees of freedom of each stratum, from residuals of shape (items,)."""
        g, choose = len(self.stratum), self._choose
        weighted = self.weight * residual
        squares = np.bincount(self.group, weighted, g) ** 2
        total = np.bincount(self.of_item, weighted * residual, self.strata)
        total = total[0] if self._one else total
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            sandwich = self._groups / (self._groups - 1.0) * self._sum(squares)
            q1 = self._sum(squares * self._inverse)
            q2 = np.maximum(total - q1, 0.0)
            noise = choose(self._within > 0, q2 / self._within, 0.0)
            shared = (q1 - noise * self._between_noise) / self._between_shared
            pooled = (q1 + q2) / (self._between_noise + self._within)
            noise, shared = choose(shared < 0, pooled, noise), np.maximum(shared, 0.0)
            v = self._each(noise) * self.a + self._each(shared) * self._w2  # of each group's sum
            q1_mean, q1_var = self._moments(v)
            # never below the sandwich, which holds where large groups vary more; half way up to the model's,
            # which knows more where groups are few: the larger of the two would cover 98 % for 95
            variance = sandwich + np.maximum(self._c1 * q1 + self._c2 * q2 - sandwich, 0.0) / 2
            spread = self._c1**2 * q1_var + self._c2**2 * 2 * noise**2 * self._spread
            expected = noise * self.a_sum + shared * self.w2_sum
            # neither of the two can be small alone: degrees of freedom of the one that has more
            df = np.fmax(2 * expected**2 / spread, expected**2 / self._sum(v * v) - 1)
            # equal groups: exactly G - 1, whatever the processor
            df = choose(abs(df - (self._groups - 1)) <= 1e-9 * (self._groups - 1), self._groups - 1, df)
            variance, df = _cautious(variance, df, expected, spread, 2 * q1_mean**2 / q1_var, choose)
        alone = self._groups < 2
        nothing = (total <= 0) & ~alone
        variance = choose(nothing, 0.0, choose(alone, np.inf, variance))
        df = choose(nothing, self._flat_df(), choose(alone, 1.0, df))
        return np.atleast_1d(variance), np.atleast_1d(df)

    def _moments(self, v: np.ndarray) -> tuple[Any, Any]:
        """Mean and variance of Q1 = sum of s^2 / w for independent normal group sums of variance v."""
        total, d, a, b, q = self._sum(v), v * self._inverse, v * self._inverse_root, self._b, self._q
        p, r, of_d = self._sum(a * a), self._sum(a * b), self._sum(d)
        squares = self._sum(d * d) + 2 * (total * self._sum(d * self._b2) - 2 * self._sum(d * a * b))
        squares += 2 * r * r + 2 * p * q - 4 * total * r * q + (total * q) ** 2
        return of_d - 2 * r + total * q, 2 * squares

    def _flat_df(self) -> Any:
        """Degrees of freedom where nothing varies: those of equal groups, as many as there are effective
        ones."""
        found = np.maximum(self.effective - 1, 1e-6)
        return found[0] if self._one else found


class Overlap:
    """Items of one stratum of which some share documents, each with any number of them.

    `weight`, `cell` (codes) and `shared` (the documents of each item) have shape (items,). The shared part
    of two items is the cosine of their sets of documents, so a document read beside eight others weighs less.
    """

    def __init__(self, weight: np.ndarray, cell: np.ndarray, shared: Sequence[Sequence[str]]) -> None:
        n = len(weight)
        known: dict[str, int] = {}
        rows = [sorted({known.setdefault(u, len(known)) for u in units}) for units in shared]
        z = np.zeros((n, len(known)))
        for i, units in enumerate(rows):
            z[i, units] = 1 / np.sqrt(len(units))
        self.count = len(known)
        split = z * z  # every item's weight divided over its documents
        whole = float(weight.sum())
        self.effective = whole**2 / float(((weight @ split) ** 2).sum())
        k = z @ z.T
        centre = np.eye(n) - (cell[:, None] == cell) / np.bincount(cell)[cell]
        a = weight
        self._pairs = np.outer(a, a) * k
        forms = [centre @ self._pairs @ centre, centre @ np.diag(a) @ centre]
        with_k = [form @ k for form in forms]
        # expectations of the two sums of squares (rows) under a unit of noise and of shared effect (columns)
        self._mean = np.array([[np.trace(f), np.trace(fk)] for f, fk in zip(forms, with_k, strict=True)])
        self._var = np.array(
            [
                [
                    [np.sum(f * g.T), np.sum(f * gk.T) + np.sum(fk * g.T), np.sum(fk * gk.T)]
                    for g, gk in zip(forms, with_k, strict=True)
                ]
                for f, fk in zip(forms, with_k, strict=True)
            ]
        )
        self._target = np.array([float(a @ a), float(a @ k @ a)])
        self.together = float(self._target[1])  # variance of the mean under a unit of shared effect
        self._weight = a
        # where no two items share a document the two columns are one; where all share all, nothing is known
        self._c = np.linalg.lstsq(self._mean.T, self._target, rcond=1e-9)[0]
        self._solvable = np.allclose(self._mean.T @ self._c, self._target, rtol=1e-6)

    def part(self, residual: np.ndarray) -> tuple[float, float]:
        """Variance and degrees of freedom of sum(weight * d)."""
        if not self._solvable:  # every item reads the same documents: nothing to learn about them
            return np.inf, 1.0
        q = np.array([residual @ self._pairs @ residual, self._weight @ residual**2])
        if q[1] <= 0:
            return 0.0, max(self.effective - 1, 1e-6)
        noise, shared = np.linalg.lstsq(self._mean, q, rcond=1e-9)[0]
        if shared < 0:
            noise, shared = q[1] / self._mean[1, 0], 0.0
        elif noise < 0:
            noise, shared = 0.0, q[1] / self._mean[1, 1]
        parts = np.array([noise**2, noise * shared, shared**2])
        spread = 2 * float(self._c @ (self._var @ parts) @ self._c)
        expected = float(self._target @ (noise, shared))
        variance = max(float(self._c @ q), noise * self._target[0])
        of_pairs = 2 * float(self._mean[0] @ (noise, shared)) ** 2 / (2 * float(self._var[0, 0] @ parts))
        # the floor of the noise holds where the shared part is badly known: degrees of freedom of the sum over
        # pairs, as far as there are documents for them
        df = max(2 * expected**2 / spread, min(of_pairs, self.effective / 2))
        found = _cautious(variance, df, expected, spread, of_pairs, _chosen)
        return float(found[0]), float(found[1])


def _snapped(values: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Values that are a whole number up to rounding as that number."""
    return np.where(np.abs(values - whole) <= 1e-9 * whole, whole, values)


def _chosen(condition: Any, yes: Any, no: Any) -> Any:
    """`np.where` for single numbers."""
    return yes if condition else no


def _cautious(
    variance: Any, df: Any, expected: Any, spread: Any, other: Any, choose: Any = np.where
) -> tuple[Any, Any]:
    """The estimate with its degrees of freedom, or its upper end with those of the sums of squares
    (`other`): whichever gives the shorter interval, as both hold their level."""
    raised = np.maximum(variance, expected) + CAUTION * np.sqrt(np.maximum(spread, 0.0))
    df, other = np.maximum(df, 1e-3), np.maximum(other, 1.0)
    with np.errstate(invalid="ignore", over="ignore"):
        plain = np.sqrt(variance) * special.stdtrit(np.maximum(df, 0.5), _QUANTILE)
        bound = np.sqrt(raised) * special.stdtrit(other, _QUANTILE)
    take = (df < 0.5) | (bound < plain)
    return choose(take, raised, variance), choose(take, other, df)
