"""What an evaluation can see and what it costs, before it is run.

    cells = [Cell("icr_helmet_rag_nq_4k", "helmet_rag", "helmet_rag/nq", "4k", clusters=[...], prompt=4096)]
    mde(cells, PRIOR)                     # smallest true difference found with 80 % power
    cheapest(cells, PRIOR, 0.02, Rates()) # the questions and depths that are enough for two points

A difference of two checkpoints on an item has three parts: what sticks to the question, what sticks to the
question at one length, and the rest (`Spread`). The error of a macro average follows from them and from who
shares what, by the same weights and degrees of freedom as `stats.Design`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .ledgers.summary import tokens
from .stats import Design, Effect, codes


@dataclass(frozen=True)
class Spread:
    """Variances of a difference of two checkpoints, in squared score units (0-1)."""

    question: float
    length: float
    noise: float


def widest(*spreads: Spread) -> Spread:
    """The largest of each variance: a plan made with it promises no more than any of them allows."""
    names = ("question", "length", "noise")
    return Spread(*(max(getattr(s, name) for s in spreads) for name in names))


# The simulated population of tests/test_stats_calibration.py (0/1 scores, question sd 1.6, checkpoint by
# question 0.8, by length 0.3 logits), and a judge with an sd of 25 points.
SIMULATED, JUDGED = Spread(0.035, 0.006, 0.31), Spread(0.010, 0.0, 0.0625)
# The mean over the study's pairs of settings (results/, SmolLM2-135M-Instruct on synth, 200 items or fewer): so
# small a model misses most items under either setting, which cannot differ then, so it is no upper bound.
STUDY = Spread(0.0, 0.0, 0.143)
BINARY = widest(SIMULATED, STUDY)
PRIOR: Mapping[str, Spread] = {"": BINARY, "loong_fin": JUDGED}


@dataclass(frozen=True)
class Cell:
    """One task of a plan: the question of each item (`clusters`, shape items), documents where items share
    some, and tokens of prompt and answer an item."""

    task: str
    benchmark: str
    dataset: str
    length: str
    clusters: Sequence[str]
    prompt: float
    output: float = 32.0
    shared: Sequence[Sequence[str]] | None = None

    def part(self, questions: int, each: int) -> Cell:
        """The first `questions` clusters with at most `each` items of one."""
        code, _ = codes(list(self.clusters))
        seen: dict[int, int] = {}
        kept = []
        for at, c in enumerate(code.tolist()):
            if c < questions and seen.get(c, 0) < each:
                seen[c] = seen.get(c, 0) + 1
                kept.append(at)
        shared = None if self.shared is None else [self.shared[i] for i in kept]
        return replace(self, clusters=[self.clusters[i] for i in kept], shared=shared)


@dataclass(frozen=True)
class Rates:
    """Speed of the machine, and prices: tokens a second, dollars an hour, dollars a million tokens."""

    prefill: float = 20_000.0
    decode: float = 1_000.0
    hour: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    given: bool = True  # somebody named the speeds: nothing measured takes their place

    def seconds(self, prompt: float, output: float) -> float:
        """Time for so many tokens."""
        return prompt / self.prefill + output / self.decode

    def dollars(self, prompt: float, output: float) -> float | None:
        """Price of so many tokens; None where none is stated."""
        if self.price_in is None and self.price_out is None and self.hour is None:
            return None
        by_token = (prompt * (self.price_in or 0.0) + output * (self.price_out or 0.0)) / 1e6
        return by_token + self.seconds(prompt, output) / 3600 * (self.hour or 0.0)


def measured(heads: Sequence[Mapping[str, Any]], base: Rates) -> Rates | None:
    """Tokens a second of earlier runs (their run.json), all of what the engine did while it was busy: prompt tokens
    are counted as asked, so that shared prefixes and concurrency are in the rate. None where no run was timed.

    Where the engine tells prefill and decode apart, the busy time is divided as they are; else `base` is scaled.
    """
    prompt = output = wall = prefill = decode = 0.0
    for head in heads:
        seconds, told = head.get("seconds") or {}, head.get("tokens") or {}
        if not seconds.get("wall") or not told.get("prompt"):
            continue
        wall += seconds["wall"]
        prompt, output = prompt + told["prompt"], output + (told.get("output") or 0)
        prefill, decode = prefill + seconds.get("prefill", 0.0), decode + seconds.get("decode", 0.0)
    if not wall:
        return None
    if prefill and decode and output:
        busy = wall / (prefill + decode)
        return replace(base, prefill=prompt / (prefill * busy), decode=output / (decode * busy))
    factor = base.seconds(prompt, output) / wall
    return replace(base, prefill=base.prefill * factor, decode=base.decode * factor)


@dataclass(frozen=True)
class Endpoint:
    """What a gate would judge: its MDE, and whether any result could be called a regression at all."""

    name: str
    items: int
    questions: int
    mde: float
    possible: bool


@dataclass(frozen=True)
class Choice:
    """A cheaper design: questions and items a question of each dataset; `enough` when it reaches the
    target."""

    cells: list[Cell]
    taken: dict[str, tuple[int, int]]
    mde: float
    enough: bool


def prior_of(benchmark: str, prior: Mapping[str, Spread]) -> Spread:
    """The spread of a benchmark, else the general one."""
    return prior.get(benchmark, prior[""])


def expected(cells: Sequence[Cell], prior: Mapping[str, Spread] = PRIOR) -> tuple[Design, Effect]:
    """The design of some cells and the error that a paired difference over them will have."""
    n = [len(c.clusters) for c in cells]
    cluster = [f"{c.benchmark}/{name}" for c in cells for name in c.clusters]
    shared: list[Any] | None = None
    if any(c.shared for c in cells):
        none: list[Any] = [None]
        shared = [x for c in cells for x in (c.shared or none * len(c.clusters))]
    design = Design(
        cluster, np.repeat([c.length for c in cells], n), np.repeat([c.dataset for c in cells], n), shared
    )
    of = [prior_of(c.benchmark, prior) for c in cells]
    question, length, noise = (
        np.repeat([getattr(s, name) for s in of], n) for name in ("question", "length", "noise")
    )
    return design, design.foreseen(question, length, noise)


def mde(
    cells: Sequence[Cell], prior: Mapping[str, Spread] = PRIOR, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest true difference (score units) that a one-sided test at `alpha` finds with this power."""
    return expected(cells, prior)[1].mde(alpha, power)


def endpoints(
    cells: Sequence[Cell], prior: Mapping[str, Spread] = PRIOR, alpha: float = 0.05
) -> list[Endpoint]:
    """The suite and each benchmark, as the gate has them."""
    names = list(dict.fromkeys(c.benchmark for c in cells))
    groups = [("suite", list(cells))]
    if len(names) > 1:
        groups += [(name, [c for c in cells if c.benchmark == name]) for name in names]
    found = []
    for name, part in groups:
        design, effect = expected(part, prior)
        possible = design.best_p() * len(groups) < alpha
        found.append(Endpoint(name, design.n, design.clusters, effect.mde(alpha), possible))
    return found


def cheapest(
    cells: Sequence[Cell],
    prior: Mapping[str, Spread],
    target: float,
    rates: Rates,
    alpha: float = 0.05,
) -> Choice:
    """The cheapest design of the same average whose MDE is at most `target`: a greedy (Neyman-like) choice of
    questions a dataset and items a question, each step where it takes most variance for its seconds."""
    by_dataset: dict[str, list[Cell]] = {}
    for c in cells:
        by_dataset.setdefault(c.dataset, []).append(c)
    most = {d: (_questions(part), _each(part)) for d, part in by_dataset.items()}
    taken = {d: (min(20, q), 1) for d, (q, _) in most.items()}
    made = _take(by_dataset, taken)
    found = mde(made, prior, alpha)
    while found > target:
        steps = []
        for d, (q, m) in taken.items():
            for step in ((min(most[d][0], max(q + 5, math.ceil(1.1 * q))), m), (q, min(most[d][1], m + 1))):
                if step != (q, m):
                    saved = _variance(by_dataset[d], prior, (q, m)) - _variance(by_dataset[d], prior, step)
                    spent = _seconds(by_dataset[d], step, rates) - _seconds(by_dataset[d], (q, m), rates)
                    steps.append((saved / max(spent, 1e-9), d, step))
        if not steps:
            break
        _, d, step = max(steps)
        taken[d] = step
        made = _take(by_dataset, taken)
        found = mde(made, prior, alpha)
    return Choice(made, taken, found, found <= target)


def _take(by_dataset: Mapping[str, list[Cell]], taken: Mapping[str, tuple[int, int]]) -> list[Cell]:
    return [c.part(*taken[d]) for d, part in by_dataset.items() for c in part]


def _questions(part: Sequence[Cell]) -> int:
    return max(len(set(c.clusters)) for c in part)


def _each(part: Sequence[Cell]) -> int:
    return max(int(np.bincount(codes(list(c.clusters))[0]).max()) for c in part)


def _variance(part: Sequence[Cell], prior: Mapping[str, Spread], taken: tuple[int, int]) -> float:
    """Of a dataset's mean, for questions that all have as many items as the average one."""
    spread, (q, m) = prior_of(part[0].benchmark, prior), taken
    within = 0.0
    for c in part:
        questions = min(q, len(set(c.clusters)))
        each = min(m, len(c.clusters) / len(set(c.clusters)))
        within += (spread.length + spread.noise / each) / questions
    return spread.question / q + within / len(part) ** 2


def _seconds(part: Sequence[Cell], taken: tuple[int, int], rates: Rates) -> float:
    return sum(len(c.part(*taken).clusters) * rates.seconds(c.prompt, c.output) for c in part)


def total(cells: Sequence[Cell]) -> tuple[float, float]:
    """Prompt and answer tokens of a plan."""
    return (
        sum(len(c.clusters) * c.prompt for c in cells),
        sum(len(c.clusters) * c.output for c in cells),
    )


def spread_of(change: np.ndarray, cluster: np.ndarray, cell: np.ndarray) -> Spread:
    """Variances of a measured difference (shape: items), by moments: noise within a question at one length,
    then what its lengths share."""
    d = change - np.bincount(cell, change)[cell] / np.bincount(cell)[cell]
    pair = codes(cluster.astype(np.int64) * (int(cell.max()) + 1) + cell)[0]
    n, mean = np.bincount(pair), np.bincount(pair, d) / np.bincount(pair)
    within = float((np.bincount(pair, d**2) - n * mean**2).sum())
    free = int((n - 1).sum())
    every = float(np.mean(d**2))
    noise = within / free if free > 0 else every
    of_pair = np.zeros(len(n), np.int64)
    of_pair[pair] = cluster
    between = max(float(np.mean(mean**2)) - noise * float(np.mean(1 / n)), 0.0)
    lengths = np.bincount(of_pair)
    several = lengths[lengths > 1]
    if not len(several):
        return Spread(between, 0.0, noise)
    sums, squares = np.bincount(of_pair, mean), np.bincount(of_pair, mean**2)
    at = lengths > 1
    products = float((sums[at] ** 2 - squares[at]).sum() / (several * (several - 1)).sum())
    question = min(max(products, 0.0), between)
    return Spread(question, between - question, noise)


@dataclass(frozen=True)
class Plan:
    """A plan ready to print: endpoints, cost of each setting, and the cheapest design for the margin."""

    cells: list[Cell]
    endpoints: list[Endpoint]
    costs: dict[str, tuple[float, float]]  # setting -> prompt and answer tokens
    rates: Rates
    margin: float
    choice: Choice
    notes: list[str] = field(default_factory=list)
    alpha: float = 0.05


def make(
    cells: Sequence[Cell],
    settings: Mapping[str, Sequence[Cell]],
    *,
    margin: float,
    prior: Mapping[str, Spread] = PRIOR,
    rates: Rates | None = None,
    alpha: float = 0.05,
    notes: Sequence[str] = (),
) -> Plan:
    """Everything about an evaluation of these cells; `settings` gives each setting's cells with its own
    tokens."""
    rates = rates or Rates()
    costs = {name: total(part) for name, part in settings.items()}
    dearest = max(settings.values(), key=lambda part: rates.seconds(*total(part)), default=cells)
    choice = cheapest(list(dearest), prior, margin, rates, alpha)
    return Plan(list(cells), endpoints(cells, prior, alpha), costs, rates, margin, choice, list(notes), alpha)


def length_of(cell: Cell) -> int:
    """Nominal tokens of a cell, 0 where it has none."""
    return tokens(cell.length) if cell.length else 0
