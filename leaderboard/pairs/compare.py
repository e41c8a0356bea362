"""The paired comparison of two runs: suite, benchmarks, cells, and what flipped.

`compare(pairs)` gives one object; every table, gate and file is a rendering of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ledgers.summary import tokens
from ..stats import Effect, benjamini_hochberg, holm
from ..text import names as suite
from ..text.printed import settled
from .joined import Pairs

CELL_FDR = 0.10


@dataclass(frozen=True)
class Line:
    """One compared quantity: absolute scores of both runs and their paired difference.

    `adjusted` is Holm's p over suite and benchmarks, for cells the two-sided Benjamini-Hochberg q.
    """

    name: str
    title: str
    base: Effect
    new: Effect
    delta: Effect
    adjusted: float

    @property
    def flagged(self) -> bool:
        """Whether a cell stands out: its false discovery rate is below 10 %."""
        return settled(self.adjusted) < CELL_FDR


@dataclass(frozen=True)
class Flips:
    """Items by what happened to their score, and how many answers are byte-identical."""

    worse: int
    better: int
    same: int
    identical: int


@dataclass(frozen=True)
class Comparison:
    """Everything a report shows. `lines` is the Holm family: the suite, then each benchmark (if more than
    one)."""

    lines: list[Line]
    cells: list[Line]
    flips: Flips
    n: int
    clusters: int


def compare(pairs: Pairs, *, worse_only: bool = False) -> Comparison:
    """Estimates for paired runs; the suite weighs datasets equally, as the papers' averages do.

    `worse_only` adjusts the one-sided p of "new is lower" (the gate) in place of the two-sided one.
    """
    names = sorted(set(pairs.benchmark.tolist()), key=suite.order)
    everything = np.ones(len(pairs), bool)
    head = "suite" if len(names) > 1 else f"suite ({suite.title(names[0])})"
    chosen = [("suite", head, everything)]
    if len(names) > 1:
        chosen += [(name, suite.title(name), pairs.benchmark == name) for name in names]
    family = [_line(pairs, *part) for part in chosen]
    lines = _adjusted(family, holm([x.delta.p_less if worse_only else x.delta.p for x in family]))
    labels = np.array(
        [f"{d}@{n}" if n else d for d, n in zip(pairs.dataset, pairs.length, strict=True)], object
    )
    cells = [
        _line(pairs, name, _short(name), labels == name) for name in sorted(set(labels.tolist()), key=_place)
    ]
    cells = _adjusted(cells, benjamini_hochberg([cell.delta.p for cell in cells]))
    d = pairs.change
    flips = Flips(int((d < 0).sum()), int((d > 0).sum()), int((d == 0).sum()), int(pairs.same.sum()))
    return Comparison(lines, cells, flips, len(pairs), len(set(pairs.cluster.tolist())))


def _line(pairs: Pairs, name: str, title: str, at: np.ndarray) -> Line:
    design = pairs.design(at)
    base, new = pairs.base[at], pairs.new[at]
    delta = design.effect(new - base, same=pairs.same[at])
    return Line(name, title, design.score(base), design.score(new), delta, float("nan"))


def _adjusted(lines: list[Line], p: np.ndarray) -> list[Line]:
    return [Line(x.name, x.title, x.base, x.new, x.delta, float(q)) for x, q in zip(lines, p, strict=True)]


def _place(name: str) -> tuple[tuple[int, str], str, int]:
    dataset, _, length = name.partition("@")
    return suite.order(dataset.partition("/")[0]), dataset, tokens(length)


def _short(name: str) -> str:
    """`helmet_rag/nq@64k` -> `nq@64k`; a benchmark with one dataset keeps its name."""
    benchmark, _, rest = name.partition("/")
    dataset, at, length = rest.partition("@")
    return f"{suite.title(benchmark) if dataset in ('all', 'rag', benchmark) else dataset}{at}{length}"
