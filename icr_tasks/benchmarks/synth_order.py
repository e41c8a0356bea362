"""icr_synth_order: answers that only many passages together, read in their order, can give.

The passages are a chronicle. Asked is the buyer at the i-th sale, who holds an office after several changes,
how often something was sold, or all who bought it. Up to 24 passages matter, spread over the whole context,
so a retriever that shows fewer of them must lose, and a cache that forgot one shows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import IcrError
from ..metrics import scorers
from .base import Item, ItemSet, Unit
from .declare import benchmark, grid, whole
from .paper_prompts import PROMPTS
from .synth import PASSAGES as ALL_PASSAGES
from .synth import names, parts

VERSION = "1"
PASSAGES = {size: n for size, n in ALL_PASSAGES.items() if n >= 24}
KINDS = ("ith", "latest", "count", "set")
_FEWEST, _MOST = 3, 24  # passages that matter
_SALE = (
    "{thing} was sold to {who}.",
    "{who} bought {thing} at auction.",
    "The next owner of {thing} was {who}.",
)
_OFFICE = (
    "{thing} chose {who} as its mayor.",
    "{who} became mayor of {thing}.",
    "The mayor of {thing} was now {who}.",
)
_TIME = "The passages are in the order in which things happened. "
_ASK = {
    "ith": _TIME + "Who was the buyer when {thing} was sold for the {i} time?",
    "latest": _TIME + "Who is mayor of {thing} at the end?",
    "count": "How many times was {thing} sold in all? Answer with a number.",
    "set": "Which people bought {thing}? Name every one of them.",
}


def load(
    dataset: str = "all",
    length: str | None = None,
    *,
    seed: int = 0,
    n: int = 100,
    split: str = "test",
    kinds: Sequence[str] = (),
    passages: int | None = None,
    most: int = _MOST,
    **_: Any,
) -> ItemSet:
    """`n` questions at a nominal length. `kinds` and `most` (passages that matter at most) set the difficulty.

    Deterministic in all arguments. Raises IcrError for unknown names and for too few passages.
    """
    k = parts.count(length, passages, PASSAGES, split, kinds, KINDS)
    high = min(most, max(8, k // 3))
    if high < _FEWEST or k <= high:
        raise IcrError(
            f"{k} passages of which up to {high} matter: use at least {_MOST} passages and most >= {_FEWEST}"
        )
    items = []
    for number in range(n):
        kind = ([c for c in KINDS if not kinds or c in kinds])[number % len(kinds or KINDS)]
        r = names.rng("order", VERSION, seed, split, number, high)
        thing = _thing(kind, split, r)
        people = _people(r.randint(_FEWEST, high), split, r)
        i = r.randint(2, len(people))
        question = _ASK[kind].format(thing=thing, i=ordinal(i))
        gold = {"ith": [people[i - 1]], "latest": [people[-1]], "count": [str(len(people))], "set": people}[
            kind
        ]
        name = f"order-{VERSION}-{split}-{seed}-{number}"
        keys = {"length": length or f"{k} passages", "kind": kind, "mentions": len(people)}
        fields = {"gold": gold, "candidates": people, "kind_of_answer": kind}
        units = partial(_units, kind, thing, tuple(people), seed, split, number, k)
        items.append(Item(name, question, (", ".join(gold),), name, units, keys=keys, fields=fields))
    return ItemSet(items, n, "generated", f"{VERSION}-{split}-seed{seed}", True)


def ordinal(n: int) -> str:
    """2 -> "2nd", 11 -> "11th".

    >>> [ordinal(n) for n in (1, 2, 3, 11, 22)]
    ['1st', '2nd', '3rd', '11th', '22nd']
    """
    last = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{last}"


def _thing(kind: str, split: str, r: Any) -> str:
    """What is sold, or the town that has a mayor."""
    return (
        names.pick("city", split, r)
        if kind == "latest"
        else f"{names.pick('title', split, r)} of {names.pick('last', split, r)}"
    )


def _people(count: int, split: str, r: Any) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[f"{names.pick('first', split, r)} {names.pick('last', split, r)}"] = None
    return list(found)


def _units(
    kind: str, thing: str, people: tuple[str, ...], seed: int, split: str, number: int, k: int
) -> list[Unit]:
    """The chronicle: the passages that matter at places spread over it, the same kinds of events between."""
    r = names.rng("order", VERSION, seed, split, number, "passages", k)
    places = sorted(r.sample(range(k), len(people)))
    matter = dict(zip(places, people, strict=True))
    pool = [_thing(r.choice(KINDS), split, r) for _ in range(max(4, k // 6))]
    others = [other for other in pool if other != thing]
    units = []
    for place in range(k):
        about = thing if place in matter else r.choice(others)
        who = matter.get(place) or _people(1, split, r)[0]
        office = kind == "latest" if place in matter else not about.startswith("The ")
        sentence = r.choice(_OFFICE if office else _SALE).format(thing=about, who=who)
        units.append(
            Unit(
                f"o-{place}",
                parts.around(sentence, ("company", "city"), r),
                f"Entry on {about}",
                gold=place in matter,
            )
        )
    return units


def _pattern(form: str) -> str:
    return re.escape(form).replace(r"\{thing\}", "(?P<thing>.+)").replace(r"\{i\}", r"(?P<i>\d+)\w\w")


def solve(question: str, passages: Sequence[str]) -> str | None:
    """The answer read from the passages in their order; None when they tell nothing about what is asked."""
    matches = {kind: re.fullmatch(_pattern(form), question) for kind, form in _ASK.items()}
    kind, asked = next(((k, m) for k, m in matches.items() if m), ("", None))
    if asked is None:
        return None
    forms = _OFFICE if kind == "latest" else _SALE
    said = [fact["who"] for fact in parts.stated(passages, forms, thing=asked["thing"])]
    if not said:
        return None
    if kind == "ith":
        i = int(asked["i"])
        return said[i - 1] if i <= len(said) else None
    return {"latest": said[-1], "count": str(len(said)), "set": ", ".join(dict.fromkeys(said))}[kind]


@benchmark(
    "synth_order",
    title="Synth order",
    units="passages",
    marks_gold=True,
    chance=None,
    metrics=("order", *scorers.COST),
    prompts={name: replace(prompt, ordered=True) for name, prompt in PROMPTS.items()},
    source="generated by icr_tasks.benchmarks.synth_order",
    revision=VERSION,
    license="Apache-2.0",
    metric_definition="right person or number and no other (0 or 1); F1 of the people named for a set",
    cluster="question",
    breakdown=["kind", "mentions"],
)
class SynthOrder:
    """Generated from a seed: nothing to fetch, contamination-free, checked by a solver."""

    tasks = grid(length=PASSAGES)
    groups = [whole("icr_synth_order", "synth order", tasks, "order")]
    load = staticmethod(load)
    files = None
