"""Questions over the fictional world, each with the entities whose passages are its gold evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import names
from .world import MONTHS, Entity, World

SINGLE = {
    "person": {
        "born_in": "In which city was {name} born?",
        "born_on": "On what date was {name} born?",
        "occupation": "What was the profession of {name}?",
    },
    "company": {
        "founder": "Who founded {name}?",
        "based_in": "In which city is {name} based?",
        "founded": "In what year was {name} founded?",
    },
    "work": {"author": "Who wrote {name}?", "year": "In what year was {name} published?"},
    "city": {"river": "On which river does {name} lie?", "charter": "In what year did {name} receive its charter?"},
}
HOPS = {  # (start, bridge relation) -> relation of the bridge person -> question
    ("work", "author"): {
        "born_in": "In which city was the author of {name} born?",
        "born_on": "On what date was the author of {name} born?",
    },
    ("company", "founder"): {
        "born_in": "In which city was the founder of {name} born?",
        "occupation": "What was the profession of the founder of {name}?",
    },
}
DOMAINS = {"biography": ("person",), "business": ("company",), "arts": ("work",), "geography": ("city",)}
TYPES = ("single", "hop", "single", "hop", "single", "hop", "single", "comparison", "single", "yesno")


@dataclass(frozen=True)
class Question:
    """`golds` are the entities whose passages state what is needed; `kind` is one of single, hop, comparison, yesno."""

    text: str
    answers: tuple[str, ...]
    golds: tuple[Entity, ...]
    kind: str


def aliases(value: str) -> tuple[str, ...]:
    """Other forms of an answer: dates in three orders, companies without their legal suffix."""
    words = value.split()
    if len(words) == 3 and words[1] in MONTHS:
        day, month, year = words
        return value, f"{month} {day}, {year}", f"{year}-{MONTHS.index(month) + 1:02}-{int(day):02}"
    if words[-1] in names._SUFFIX:
        return value, " ".join(words[:-1])
    return (value,)


def make(world: World, number: int, kinds: Sequence[str] = (), domain: str | None = None) -> Question:
    """Question `number` of the world. Kinds cycle so that any prefix is balanced."""
    cycle = [t for t in TYPES if not kinds or t in kinds]
    kind = cycle[number % len(cycle)]
    r = names.rng(world.seed, world.split, "question", number, domain)
    return _MAKERS[kind](world, number, r, DOMAINS[domain] if domain else tuple(SINGLE))


def _single(world: World, number: int, r: object, starts: Sequence[str]) -> Question:
    entity = world.entity(r.choice(starts), f"q{number}")  # type: ignore[attr-defined]
    relation = r.choice(sorted(SINGLE[entity.kind]))  # type: ignore[attr-defined]
    text = SINGLE[entity.kind][relation].format(name=entity.name)
    return Question(text, aliases(entity.facts[relation]), (entity,), "single")


def _hop(world: World, number: int, r: object, starts: Sequence[str]) -> Question:
    routes = [route for route in HOPS if route[0] in starts] or list(HOPS)
    start, bridge = r.choice(routes)  # type: ignore[attr-defined]
    entity = world.entity(start, f"q{number}")
    person = world.entity("person", f"of/q{number}/None")
    relation = r.choice(sorted(HOPS[start, bridge]))  # type: ignore[attr-defined]
    text = HOPS[start, bridge][relation].format(name=entity.name)
    return Question(text, aliases(person.facts[relation]), (entity, person), "hop")


def _pair(world: World, number: int, starts: Sequence[str]) -> tuple[Entity, Entity, str]:
    kind, relation = next(((k, v) for k, v in (("company", "founded"), ("work", "year"), ("city", "charter")) if k in starts), ("company", "founded"))  # fmt: skip
    first = world.entity(kind, f"q{number}")
    for attempt in range(1000):
        second = world.entity(kind, f"q{number}/other/{attempt}")
        if second.facts[relation] != first.facts[relation] and second.name != first.name:
            return first, second, relation
    raise AssertionError("a world without two different years")


def _comparison(world: World, number: int, r: object, starts: Sequence[str]) -> Question:
    first, second, relation = _pair(world, number, starts)
    earlier, later = sorted((first, second), key=lambda e: int(e.facts[relation]))
    # The order of mention alternates, so that "the first one named" is right half the time.
    named = (earlier, later) if (number // len(TYPES)) % 2 else (later, earlier)
    verb = {"founded": "was founded", "year": "was published", "charter": "received its charter"}[relation]
    text = f"Which {verb} earlier, {named[0].name} or {named[1].name}?"
    return Question(text, aliases(earlier.name), (first, second), "comparison")


def _yesno(world: World, number: int, r: object, starts: Sequence[str]) -> Question:
    first, second, relation = _pair(world, number, starts)
    truth = (number // len(TYPES)) % 2 == 0
    earlier, later = sorted((first, second), key=lambda e: int(e.facts[relation]))
    a, b = (earlier, later) if truth else (later, earlier)
    verb = {"founded": "founded", "year": "published", "charter": "chartered"}[relation]
    return Question(f"Was {a.name} {verb} before {b.name}?", ("yes" if truth else "no",), (first, second), "yesno")


_MAKERS = {"single": _single, "hop": _hop, "comparison": _comparison, "yesno": _yesno}
