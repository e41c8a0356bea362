"""Answers that are written one a line, and sets of them: the scores of LongBench Pro and GraphWalks, 0 to 1.

What follows the last mark is the answer; case and runs of blanks do not count, a blank line in between is a
line of its own. LongBench Pro's own functions (caskcsg/longcontext @ 88fbeb85) give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import combinations

MARKS = ("[Answer]", "[答案]")  # the second only where the first is nowhere


def region(text: str) -> str | None:
    """What follows the last mark; None without one."""
    mark = next((mark for mark in MARKS if mark in text), None)
    return None if mark is None else text.rpartition(mark)[2]


def lines(text: str) -> list[str]:
    """The answer (everything without a mark) line by line; an empty one is one empty line."""
    found = region(text)
    return [plain(line) for line in (text if found is None else found).strip().split("\n")]


def plain(text: str) -> str:
    """Lower case, runs of blanks as one.

    >>> plain(" Two  words ")
    'two words'
    """
    return " ".join(text.lower().split())


def f1(said: Collection[str], gold: Collection[str]) -> float:
    """F1 of two sets; two empty ones agree: 1."""
    ours, theirs = set(said), set(gold)
    if not ours and not theirs:
        return 1.0
    return 2 * len(ours & theirs) / (len(ours) + len(theirs))


def ndcg(said: Sequence[str], gold: Sequence[str]) -> float:
    """NDCG@len(gold), the first gold line worth most. A line that is said twice has the place of the last time."""
    gains = {line: len(gold) - n for n, line in enumerate(gold)}
    places = {line: n for n, line in enumerate(said)}
    ranked = sorted(places, key=lambda line: places[line])[: len(gold)]
    best = sum(gain / math.log2(n + 2) for n, gain in enumerate(sorted(gains.values(), reverse=True)))
    return sum(gains.get(line, 0) / math.log2(n + 2) for n, line in enumerate(ranked)) / best


def order(said: Sequence[str], gold: Sequence[str]) -> float:
    """Pairs of gold lines in their order, over all pairs of lines that were said. 0 for a single line of either."""
    if len(said) < 2 or len(gold) < 2:
        return 0.0
    places = {line: n for n, line in enumerate(said)}
    right = sum(a in places and b in places and places[a] < places[b] for a, b in combinations(gold, 2))
    return right / math.comb(len(said), 2)


def first(said: Sequence[str], gold: Sequence[str]) -> float:
    """Whether the first line is the first gold line."""
    return float(said[0] == gold[0])


def share(said: Sequence[str], gold: Sequence[str]) -> float:
    """Share of gold lines that were said."""
    return sum(line in said for line in gold) / len(gold)


BY_NAME: dict[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "f1": f1,
    "ndcg": ndcg,
    "order": order,
    "first": first,
    "share": share,
}
