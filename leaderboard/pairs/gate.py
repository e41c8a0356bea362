"""The regression gate: is the candidate worse than the pinned baseline beyond noise?

One-sided at `alpha`, non-inferiority with a margin. One Holm family: the suite and each benchmark; cells are
shown, never gated (20 uncorrected cells flag something in half of all no-change runs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from icr_tasks.errors import unknown
from icr_tasks.schema import same_run

from .. import plan
from ..ledgers.load import Run
from ..ledgers.summary import tokens as tokens_of
from ..stats import clusters_needed, codes
from ..text.names import TITLES, count, points
from ..text.printed import settled
from .compare import Comparison, Line, compare
from .joined import Pairs

PASS, REGRESSED, INCONCLUSIVE, NOT_COMPARABLE = "PASS", "REGRESSED", "INCONCLUSIVE", "NOT COMPARABLE"
CODES = {PASS: 0, REGRESSED: 1, INCONCLUSIVE: 3, NOT_COMPARABLE: 4}  # 2: usage errors and crashes
SEVERITY = (PASS, INCONCLUSIVE, REGRESSED, NOT_COMPARABLE)
SUITE_MARGIN, BENCHMARK_MARGIN, ALPHA = 0.02, 0.05, 0.05


@dataclass(frozen=True)
class Endpoint:
    """One gated quantity with its margin and verdict; `remark` adds what the verdict alone would hide."""

    line: Line
    margin: float
    verdict: str
    remark: str
    best: float = (
        0.0  # the smallest p after Holm that any result could have, while no other endpoint is lower
    )


@dataclass(frozen=True)
class Verdict:
    """The gate's answer. `reason` is one sentence; `comparison` is None when nothing may be compared."""

    verdict: str
    reason: str
    alpha: float
    strict: bool
    endpoints: list[Endpoint] = field(default_factory=list)
    comparison: Comparison | None = None
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """Exit code: INCONCLUSIVE is 3, or 0 when that is allowed (not strict)."""
        return 0 if self.verdict == INCONCLUSIVE and not self.strict else CODES[self.verdict]


def refused(reasons: list[str], short: str = "", *, alpha: float = ALPHA, strict: bool = True) -> Verdict:
    """NOT COMPARABLE for these reasons; `short` is the first one without its remedy."""
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return Verdict(NOT_COMPARABLE, (short or reasons[0]) + more, alpha, strict, refusals=reasons)


def gate(
    pairs: Pairs,
    *,
    margin: float = SUITE_MARGIN,
    benchmark_margin: float = BENCHMARK_MARGIN,
    margins: Mapping[str, float] | None = None,
    alpha: float = ALPHA,
    strict: bool = True,
) -> Verdict:
    """Judge paired runs. Margins are in score units (0.02 = 2 points); `margins` overrides by endpoint name, or by
    that of the one benchmark there is, which is the suite then.

    An endpoint is PASS when the lower bound of its 1-2*alpha interval is above -margin; REGRESSED when it is
    not PASS and its Holm-adjusted one-sided p is below alpha; else INCONCLUSIVE. The gate is REGRESSED when
    any endpoint is, PASS when all are (an intersection: needs no correction), else INCONCLUSIVE.
    """
    if pairs.refusals:
        return refused([str(r) for r in pairs.refusals], pairs.refusals[0].short, alpha=alpha, strict=strict)
    result = compare(pairs, worse_only=True)
    for name in margins or {}:
        if name not in {*TITLES, "suite", *(line.name for line in result.lines)}:
            raise unknown("benchmark of a margin", name, TITLES)
    held, asked = sorted(set(pairs.benchmark.tolist())), dict(margins or {})
    if len(held) == 1 and (own := asked.pop(held[0], None)):
        asked["suite"] = min(own, asked.get("suite", own))
    chosen = {line.name: benchmark_margin for line in result.lines} | {"suite": margin} | asked
    ends = [_endpoint(pairs, line, chosen[line.name], alpha) for line in result.lines]
    ends = [replace(e, best=_best(pairs, e.line, len(ends))) for e in ends]
    notes = list(pairs.notes)
    notes += [
        f"margin of {TITLES.get(name, name)}: these runs have no task of it"
        for name in asked
        if name not in {"suite", *held}
    ]
    for end in ends:
        mde = end.line.delta.mde(alpha)
        if settled(end.margin) < settled(mde / 2):
            notes.append(
                f"{end.line.title}: margin {points(end.margin)} is below half of what this run can detect "
                f"({points(mde)})"
            )
    notes += undecidable(ends, alpha)
    undecided = [end for end in ends if end.verdict == INCONCLUSIVE and end.line.delta.test != "identical"]
    notes += [planned(pairs, end, alpha) for end in undecided[:1] if math.isfinite(end.line.delta.se)]
    verdict = _verdict(ends)
    reason = _reason(verdict, ends, alpha, pairs)
    return Verdict(verdict, reason, alpha, strict, ends, result, [], notes, dict(pairs.left_out))


def _verdict(ends: list[Endpoint]) -> str:
    found = {end.verdict for end in ends}
    return REGRESSED if REGRESSED in found else PASS if found == {PASS} else INCONCLUSIVE


def concluded(found: Verdict, ends: list[Endpoint]) -> Verdict:
    """The same gate with other endpoints: its verdict and reason follow from theirs."""
    if ends == found.endpoints:
        return found
    verdict = _verdict(ends)
    if verdict == REGRESSED:
        reason = _named([e for e in ends if e.verdict == REGRESSED])
    else:
        reason = "; ".join(
            f"{e.line.title} {points(e.line.delta.mean, sign=True)} {e.remark}" for e in ends if e.remark
        )
    return replace(found, verdict=verdict, reason=reason, endpoints=ends)


def _named(ends: list[Endpoint]) -> str:
    return ", ".join(f"{e.line.title} {points(e.line.delta.mean, sign=True)}" for e in ends)


def _endpoint(pairs: Pairs, line: Line, margin: float, alpha: float) -> Endpoint:
    low, high = map(settled, line.delta.ci(1 - 2 * alpha))
    if line.delta.test == "identical":
        whole = _sum(pairs, line, pairs.met) >= _sum(pairs, line, pairs.expected)
        enough = whole or line.delta.effective >= _would_show(margin, alpha)
        return Endpoint(line, margin, PASS if enough else INCONCLUSIVE, "identical answers")
    if low > settled(-margin):
        return Endpoint(line, margin, PASS, "small real drop" if high < 0 else "")
    if settled(line.adjusted) < alpha:
        return Endpoint(line, margin, REGRESSED, "")
    return Endpoint(line, margin, INCONCLUSIVE, "lower, but not after Holm" if high < 0 else "")


def _sum(pairs: Pairs, line: Line, items: Mapping[str, int]) -> int:
    """Items of an endpoint's tasks: those its data have (`pairs.expected`), or both runs (`pairs.met`)."""
    return sum(items.get(task, 0) for task in set(pairs.task[_at(pairs, line)].tolist()))


def _would_show(margin: float, alpha: float) -> int:
    """So many questions of which none changed rule out, at this level, a loss of the margin: it touches at the least
    that share of the questions. Of all that there are no other is left to change."""
    return math.ceil(settled(math.log(alpha) / math.log(1 - margin))) if margin < 1 else 1


def _best(pairs: Pairs, line: Line, lines: int) -> float:
    identical = line.delta.test == "identical"
    return 0.0 if identical else min(1.0, pairs.design(_at(pairs, line)).best_p() * lines)


def undecidable(ends: list[Endpoint], alpha: float) -> list[str]:
    """Endpoints that no result could call a regression: one cluster, or so few that no p is below alpha."""
    return [
        f"{end.line.title}: no result could be called a regression at alpha {alpha:.2g} "
        f"({count(end.line.delta.clusters)} questions or documents); icr plan says so before a run"
        for end in ends
        if settled(end.best) >= settled(alpha)
    ]


def planned(pairs: Pairs, end: Endpoint, alpha: float) -> str:
    """The plan's line for an undecided endpoint: what these items can see, by the variances measured in them, and
    where the rest of the data would help what all of it can."""
    at = _at(pairs, end.line)
    tasks, spreads = [], {}
    for benchmark in dict.fromkeys(pairs.benchmark[at].tolist()):
        own = at & (pairs.benchmark == benchmark)
        cell = codes(pairs.task[own])[0]
        spreads[benchmark] = plan.spread_of(pairs.change[own], codes(pairs.cluster[own])[0], cell)
    for task in dict.fromkeys(pairs.task[at].tolist()):
        own = np.flatnonzero(at & (pairs.task == task))
        shared = [pairs.keys[i].get("documents") for i in own]
        names = (pairs.benchmark[own[0]], pairs.dataset[own[0]], pairs.length[own[0]])
        tokens = float(tokens_of(names[2]) or 1)
        clusters = pairs.cluster[own].tolist()
        tasks.append(plan.Cell(task, *names, clusters, tokens, shared=shared if all(shared) else None))
    # of changes that are all the same the spread is zero, which the endpoint's own error does not believe
    sees = max(plan.mde(tasks, {"": plan.BINARY, **spreads}, alpha), end.line.delta.mde(alpha))
    margin = points(end.margin)
    head = f"plan: {end.line.title}: {count(end.line.delta.n)} items see {points(sees)} in 8 of 10 cases"
    there = _sum(pairs, end.line, pairs.expected)
    if there > end.line.delta.n:
        least = sees * math.sqrt(end.line.delta.n / there)
        head += f", all {count(there)} there are about {points(least)}"
    if sees > end.margin or not any(s.question + s.length + s.noise for s in spreads.values()):
        return f"{head}; the margin is {margin}"
    choice = plan.cheapest(tasks, {"": plan.BINARY, **spreads}, end.margin, plan.Rates(), alpha)
    part = "; ".join(f"{d.partition('/')[2] or d} {q} questions x {m}" for d, (q, m) in choice.taken.items())
    return f"{head}; the cheapest part of them that sees {margin}: {part}"


def _at(pairs: Pairs, line: Line) -> np.ndarray:
    """The items of an endpoint."""
    return np.ones(len(pairs), bool) if line.name == "suite" else pairs.benchmark == line.name


def _reason(verdict: str, ends: list[Endpoint], alpha: float, pairs: Pairs) -> str:
    if verdict == PASS:
        if {e.remark for e in ends} == {"identical answers"}:
            return "every answer is the same, byte for byte"
        drops = [e.line.title for e in ends if e.remark == "small real drop"]
        return (
            f"no endpoint is lower by its margin{'; small real drop in ' + ', '.join(drops) if drops else ''}"
        )
    at = [e for e in ends if e.verdict == verdict]
    if verdict == REGRESSED:
        return _named(at)
    end = next((e for e in at if e.line.delta.test != "identical"), at[0])
    if end.line.delta.test == "identical":
        return (
            f"{', '.join(e.line.title for e in at)}: the same answers, byte for byte, of {count(end.line.delta.clusters)} "
            f"questions; {count(_would_show(end.margin, alpha))} of them, or all there are, rule out a loss of "
            f"{points(end.margin)}"
        )
    needed = clusters_needed(end.line.delta, end.margin, alpha)
    names = ", ".join(e.line.title for e in at)
    if needed is None or not math.isfinite(end.line.delta.se):
        return f"{names}: one cluster only, no error can be estimated; add questions"
    return f"{names}: {_way_out(end, needed, alpha, pairs)}"


def _way_out(end: Endpoint, needed: int, alpha: float, pairs: Pairs) -> str:
    """How to settle an undecided endpoint; never more questions than the data have."""
    delta, margin = end.line.delta, points(end.margin)
    there = _sum(pairs, end.line, pairs.expected)
    has = max(delta.clusters, round(delta.clusters * max(there, delta.n) / delta.n))
    least = delta.mde(alpha) * math.sqrt(delta.clusters / has)
    if has > delta.clusters and needed <= has:
        return (
            f"to settle a {margin} margin run about {count(needed)} of the {count(has)} questions there are "
            f"(now {count(delta.clusters)}), or widen the margin"
        )
    if settled(least) <= settled(end.margin):
        return f"the change lies near the {margin} margin, which these data can settle only away from it; widen the margin"
    if settled(least) >= 1:
        return (
            f"a {margin} margin is beyond these data, and no margin below 100 can be settled by all {count(has)} "
            "questions; add questions, or plan another suite (icr plan)"
        )
    return (
        f"a {margin} margin is beyond these data (all {count(has)} questions see {points(least)}); widen "
        "the margin to "
        f"{points(least)}, or plan another suite (icr plan)"
    )


# ---- rerun ---------------------------------------------------------------------------------------
# A/A: the same run made twice. What differs is noise of engine and machine, which no paired error bar
# contains.


@dataclass(frozen=True)
class Noise:
    """One repetition: `delta` per endpoint title (score units), shares of items that flipped and that are
    identical."""

    n: int
    delta: dict[str, float]
    flipped: float
    identical: float
    first: str | None


def once(one: Run, two: Run) -> str | None:
    """What shows that the answers of two runs were generated once (a copied folder, a store, a replay); None where
    nothing does."""
    for name in sorted(one.tasks.keys() & two.tasks.keys()):
        a, b = one.tasks[name].sheet, two.tasks[name].sheet
        if a.get("evaluated") and a["evaluated"] == b.get("evaluated"):
            return f"both hold the evaluation of {a['evaluated']} ({name})"
        spent = (
            a.get("seconds") or {}
        )  # of the engine: what is taken from a store keeps those of its generation
        if any(spent.values()) and spent == b.get("seconds"):
            return (
                f"the answers of {name} took the same seconds to the last digit, so they were generated once"
            )
    return None


def not_the_same(base: Run, again: Run) -> str | None:
    """Why two runs are not repetitions of one another; None when they are."""
    if base.folder.resolve() == again.folder.resolve():
        return f"{base.folder} is given twice; collect the repetition into another folder (icr collect -o results-2)"
    if why := once(base, again):
        return f"not a repetition, {why}; evaluate again, with another answer store"
    if not same_run(base.head, again.head.get("fingerprint_inputs") or {}):
        one, two = base.head.get("fingerprint_inputs", {}), again.head.get("fingerprint_inputs", {})
        differ = sorted(k for k in {*one, *two} if one.get(k) != two.get(k))
        return f"not a repetition, these differ: {', '.join(differ) or 'fingerprints'}; --aa needs the same run twice"
    return None


def noise(pairs: Pairs) -> Noise:
    """Measured re-run noise of one pair. Raises ValueError when the pair has refusals."""
    if pairs.refusals:
        raise ValueError("not comparable")
    result = compare(pairs)
    flipped = pairs.change != 0
    changed = np.flatnonzero(~pairs.same)
    first = f"{pairs.task[changed[0]]} {pairs.item[changed[0]]}" if len(changed) else None
    delta = {line.title: line.delta.mean for line in result.lines}
    return Noise(result.n, delta, float(flipped.mean()), float(pairs.same.mean()), first)


def render(found: list[Noise], label: str) -> str:
    """Terminal block: one line a repetition, then the margins this noise allows."""
    lines = [f"icr gate --aa  {label}"]
    for number, one in enumerate(found, 1):
        deltas = " · ".join(f"{title} {points(value, sign=True)}" for title, value in one.delta.items())
        lines.append(
            f"repetition {number}: {deltas} · {count(one.n)} items, {points(one.flipped)} % flipped, "
            f"{points(one.identical)} % of answers "
            f"byte-identical{f', first other answer {one.first}' if one.first else ''}"
        )
    titles = found[0].delta
    worst = {title: max(abs(one.delta[title]) for one in found if title in one.delta) for title in titles}
    suite = next(iter(worst))
    rest = max(list(worst.values())[1:], default=worst[suite])
    lines.append(f"→ keep --margin above {points(worst[suite])} and --benchmark-margin above {points(rest)}")
    return "\n".join(lines)
