"""A fictional world: entities made on demand from (seed, kind, number), each with a passage that states its facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from . import names
from .texts import FILLER, SENTENCES

KINDS = ("person", "company", "work", "city")
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_WORDS = 92  # about the length of HELMET's passages


class Entity(NamedTuple):
    """An entity and its facts: relation -> value as it stands in the passage."""

    kind: str
    name: str
    facts: dict[str, str]


@dataclass(frozen=True)
class World:
    """All entities of one seed and split. `kin` names: entities of the same surname, stem or city share surface forms."""

    seed: int
    split: str = "test"
    _cache: dict[str, Entity] = field(default_factory=dict, compare=False, repr=False)

    def entity(self, kind: str, number: object, stem: str | None = None) -> Entity:
        """The entity of that number; `stem` fixes the surname, company stem or title."""
        return _entity(self, kind, str(number), stem)

    def kin(self, entity: Entity, number: object) -> Entity:
        """Another entity of the same kind that shares the surface form (surname, stem, title word or city start)."""
        stem = {"person": entity.name.split()[-1], "company": entity.name.split()[0]}.get(entity.kind)
        if entity.kind == "work":
            stem = entity.name.split()[-1]
        return self.entity(entity.kind, f"kin/{entity.name}/{number}", stem)


def date(random_: object, low: int, high: int) -> str:
    """A day such as "14 March 1871"."""
    return f"{random_.randint(1, 28)} {random_.choice(MONTHS)} {random_.randint(low, high)}"  # type: ignore[attr-defined]


@lru_cache(maxsize=20_000)
def _entity(world: World, kind: str, number: str, stem: str | None) -> Entity:
    r, split = names.rng(world.seed, world.split, kind, number, stem), world.split
    if kind == "person":
        name = f"{names.pick('first', split, r)} {stem or names.pick('last', split, r)}"
        facts = {
            "born_in": names.pick("city", split, r),
            "born_on": date(r, 1780, 1930),
            "occupation": r.choice(names.OCCUPATIONS),
        }
        return Entity(kind, name, facts)
    if kind == "company":
        name, _ = names.company(split, r, stem)
        founder = world.entity("person", f"of/{number}/{stem}")
        facts = {"founder": founder.name, "based_in": names.pick("city", split, r), "founded": str(r.randint(1801, 1960)), "product": r.choice(names.PRODUCTS)}  # fmt: skip
        return Entity(kind, name, facts)
    if kind == "work":
        title = names.pick("title", split, r) if stem is None else f"The {r.choice(names._TITLE_A)} {stem}"
        title = f"{title} of {names.pick('city', split, r)}"
        author = world.entity("person", f"of/{number}/{stem}")
        return Entity(
            kind, title, {"author": author.name, "year": str(r.randint(1805, 1965)), "genre": r.choice(names.GENRES)}
        )
    facts = {
        "river": names.pick("last", split, r),
        "charter": str(r.randint(1201, 1780)),
        "known_for": r.choice(names.PRODUCTS),
    }
    return Entity("city", names.pick("city", split, r), facts)


def passage(entity: Entity, key: object) -> str:
    """About 100 words that state every fact once, in one of several wordings, between sentences without facts."""
    r = names.rng("passage", entity.name, sorted(entity.facts.items()), key)
    sentences = [r.choice(SENTENCES[entity.kind][relation]) for relation in entity.facts]
    text = [s.format(name=entity.name, value=v) for s, v in zip(sentences, entity.facts.values(), strict=True)]
    fillers = list(FILLER[entity.kind])
    r.shuffle(fillers)
    count = sum(len(s.split()) for s in text)
    while fillers and count < _WORDS:
        sentence = fillers.pop().format(name=entity.name)
        # The first sentence names the entity; the rest may stand anywhere after it.
        text.insert(r.randint(1, len(text)), sentence)
        count += len(sentence.split())
    return " ".join(text)


def contains(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in the text, ignoring case."""
    low = text.lower()
    return any(a.lower() in low for a in answers)
