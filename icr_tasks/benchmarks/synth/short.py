"""icr_synth_short: one-sentence passages about invented names, for models too small to read prose.

The gold passage states one relation of one name. Among the distractors are its hard negatives: passages that
state the same relation of a name with the same last part ("Elia Brandell" / "Fenis Brandell"), one about the
same name's other relation, and one that shares the first part. Reading half the name is not enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from ...errors import IcrError, unknown
from ..base import Item, ItemSet, Unit
from . import names

VERSION = "1"
# Passages at each nominal length: "[DOC i]", a sentence and a blank line are about 20 tokens of an ordinary
# tokenizer.
PASSAGES = {"128": 6, "256": 12, "512": 24, "1k": 48, "2k": 96, "4k": 192}
NEAR = 2  # hard negatives that share the last part of the name and the relation
DEPTHS = (0.0, 0.33, 0.67, 1.0)


class Relation(NamedTuple):
    """How a fact stands in a passage, how it is asked, and the pool its value comes from."""

    sentence: str
    question: str
    pool: str


RELATIONS: dict[str, dict[str, Relation]] = {
    "biography": {
        "born_in": Relation("{name} was born in {value}.", "In which city was {name} born?", "city"),
        "occupation": Relation(
            "The profession of {name} was {value}.", "What was the profession of {name}?", "occupation"
        ),
    },
    "business": {
        "based_in": Relation(
            "{name} has its headquarters in {value}.", "In which city is {name} based?", "city"
        ),
        "product": Relation("{name} is known for its {value}.", "What is {name} known for?", "product"),
    },
    "arts": {
        "author": Relation("{name} was written by {value}.", "Who wrote {name}?", "first"),
        "genre": Relation(
            "Libraries list {name} under {value}.", "Under which genre do libraries list {name}?", "genre"
        ),
    },
    "geography": {
        "river": Relation("{name} lies on the river {value}.", "On which river does {name} lie?", "last"),
        "bell": Relation(
            "The tower of {name} was built by {value}.", "Who built the tower of {name}?", "first"
        ),
    },
}
# First and last part of a name, by domain.
_NAMES = {
    "biography": ("first", "last"),
    "business": ("last", "trade"),
    "arts": ("title", "of"),
    "geography": ("side", "city"),
}
_PARTS = 48  # invented words of each kind: few, so that a tokenizer of a thousand entries knows every one


@lru_cache(maxsize=16)
def pool(kind: str) -> tuple[str, ...]:
    """Words of that kind. Parts and values are shared by the splits; a whole name belongs to one split
    only."""
    ends = {"first": names._FIRST_END, "last": names._LAST, "city": names._CITY_END}
    if kind in ends:
        made = sorted(
            {s + e for s in names._START for e in ends[kind]}, key=lambda w: names.rng("part", w).random()
        )
        return tuple(sorted(made[:_PARTS]))
    return tuple(sorted(_FIXED[kind]))


_FIXED = {
    "occupation": names.OCCUPATIONS,
    "product": names.PRODUCTS,
    "genre": names.GENRES,
    "trade": names._TRADE,
    "title": [f"The {a} {b}" for a, b in zip(names._TITLE_A, names._TITLE_B, strict=True)],
    "of": [f"of {a}{b}" for a, b in zip(names._START, names._CITY_END * 3, strict=True)],
    "side": [
        "Upper",
        "Lower",
        "North",
        "South",
        "East",
        "West",
        "Old",
        "New",
        "Great",
        "Little",
        "High",
        "Outer",
        "Inner",
        "Near",
        "Far",
        "Saint",
    ],
}


class Fact(NamedTuple):
    """One passage before it is text."""

    domain: str
    relation: str
    first: str
    last: str
    value: str

    @property
    def name(self) -> str:
        """Both parts of the name."""
        return f"{self.first} {self.last}"

    @property
    def text(self) -> str:
        """The passage."""
        return RELATIONS[self.domain][self.relation].sentence.format(name=self.name, value=self.value)


def load(
    domain: str | None = None,
    length: str | None = None,
    *,
    seed: int = 0,
    n: int = 100,
    split: str = "test",
    passages: int | None = None,
    depths: Sequence[float] = DEPTHS,
    near: int = NEAR,
) -> ItemSet:
    """`n` questions of one domain (None: all four in turn) at a nominal length; deterministic in all
    arguments.

    `Item.fields["candidates"]` lists (passage index, value) of the gold passage and of those that share the
    last part of its name and its relation: what a reader who looks at half the name takes for the answer.
    """
    if length not in PASSAGES and passages is None:
        raise unknown("synth short length", str(length), PASSAGES)
    if domain is not None and domain not in RELATIONS:
        raise unknown("domain", domain, RELATIONS)
    if split not in ("test", "train"):
        raise unknown("split", split, ("test", "train"))
    count = passages or PASSAGES[str(length)]
    if count < near + 3:
        raise IcrError(
            f"{count} passages leave no room for the gold passage and its hard negatives; use {near + 3}"
        )
    items = []
    for number in range(n):
        where = domain or sorted(RELATIONS)[number % len(RELATIONS)]
        facts, gold, candidates = _make(seed, split, where, number, count, depths[number % len(depths)], near)
        cluster = f"short-{VERSION}-{split}-{seed}-{domain or 'all'}-{number}"
        keys = {
            "length": length or f"{count} passages",
            "depth": depths[number % len(depths)],
            "domain": where,
        }
        question = RELATIONS[where][facts[gold].relation].question.format(name=facts[gold].name)
        units = partial(_units, tuple(facts), gold)
        fields = {"candidates": candidates}
        items.append(Item(cluster, question, (facts[gold].value,), cluster, units, keys=keys, fields=fields))
    return ItemSet(items, n, "generated", f"short-{VERSION}-{split}-seed{seed}", True)


def _units(facts: tuple[Fact, ...], gold: int) -> list[Unit]:
    return [
        Unit(f"s-{i}-{f.name.lower().replace(' ', '-')}", f.text, f.name, i == gold)
        for i, f in enumerate(facts)
    ]


def _make(
    seed: int, split: str, domain: str, number: int, count: int, depth: float, near: int
) -> tuple[list[Fact], int, list[tuple[int, str]]]:
    r = names.rng("short", seed, split, domain, number)
    firsts, lasts = (pool(kind) for kind in _NAMES[domain])
    relations = list(RELATIONS[domain])
    relation = r.choice(relations)
    other = next(x for x in relations if x != relation)

    def value(of: str, *not_: str) -> str:
        return r.choice([v for v in pool(RELATIONS[domain][of].pool) if v not in not_])

    def name() -> tuple[str, str]:
        """A whole name of this split."""
        while not names.belongs(" ".join(pair := (r.choice(firsts), r.choice(lasts))), split):
            pass
        return pair

    kin: list[str] = []
    same: list[str] = []
    while len(kin) < near or not same:  # some names have too few relatives in their split
        gold = Fact(domain, relation, *name(), value(relation))
        kin = [f for f in firsts if f != gold.first and names.belongs(f"{f} {gold.last}", split)]
        same = [x for x in lasts if x != gold.last and names.belongs(f"{gold.first} {x}", split)]
    facts: list[Fact] = []
    for first in r.sample(kin, near):
        facts.append(
            Fact(domain, relation, first, gold.last, value(relation, gold.value, *(f.value for f in facts)))
        )
    facts.append(Fact(domain, other, gold.first, gold.last, value(other)))
    facts.append(Fact(domain, relation, gold.first, r.choice(same), value(relation, gold.value)))
    taken = {(f.name, f.relation) for f in (gold, *facts)}
    while len(facts) < count - 1:
        fact = Fact(domain, which := r.choice(relations), *name(), value(which, gold.value))
        if fact.last != gold.last and (fact.name, fact.relation) not in taken:
            taken.add((fact.name, fact.relation))
            facts.append(fact)
    r.shuffle(facts)
    at = min(round(depth * (count - 1)), count - 1)
    facts.insert(at, gold)
    candidates = [(i, f.value) for i, f in enumerate(facts) if f.last == gold.last and f.relation == relation]
    return facts, at, candidates
