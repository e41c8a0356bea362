"""A fictional world: entities made on demand from (seed, kind, number), each with a passage that states its
facts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from . import names
from .names import FILLER, SENTENCES

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
    """All entities of one seed and split. `kin` names: entities of the same surname, stem or city share
    surface forms."""

    seed: int
    split: str = "test"
    _cache: dict[str, Entity] = field(default_factory=dict, compare=False, repr=False)

    def entity(self, kind: str, number: object, stem: str | None = None) -> Entity:
        """The entity of that number; `stem` fixes the surname, company stem or title."""
        return _entity(self, kind, str(number), stem)

    def kin(self, entity: Entity, number: object) -> Entity:
        """Another entity of the same kind that shares the surface form (surname, stem, title word or city
        start)."""
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
        facts = {
            "founder": founder.name,
            "based_in": names.pick("city", split, r),
            "founded": str(r.randint(1801, 1960)),
            "product": r.choice(names.PRODUCTS),
        }
        return Entity(kind, name, facts)
    if kind == "work":
        title = names.pick("title", split, r) if stem is None else f"The {r.choice(names._TITLE_A)} {stem}"
        title = f"{title} of {names.pick('city', split, r)}"
        author = world.entity("person", f"of/{number}/{stem}")
        return Entity(
            kind,
            title,
            {"author": author.name, "year": str(r.randint(1805, 1965)), "genre": r.choice(names.GENRES)},
        )
    facts = {
        "river": names.pick("last", split, r),
        "charter": str(r.randint(1201, 1780)),
        "known_for": r.choice(names.PRODUCTS),
    }
    return Entity("city", names.pick("city", split, r), facts)


def passage(entity: Entity, key: object) -> str:
    """About 100 words that state every fact once, in one of several wordings, between sentences without
    facts."""
    r = names.rng("passage", entity.name, sorted(entity.facts.items()), key)
    sentences = [r.choice(SENTENCES[entity.kind][relation]) for relation in entity.facts]
    text = [
        s.format(name=entity.name, value=v) for s, v in zip(sentences, entity.facts.values(), strict=True)
    ]
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


# ---- questions -----------------------------------------------------------------------------------
# Questions over the fictional world, each with the entities whose passages are its gold evidence.

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
    "city": {
        "river": "On which river does {name} lie?",
        "charter": "In what year did {name} receive its charter?",
    },
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
    """`golds` are the entities whose passages state what is needed; `kind` is one of single, hop, comparison,
    yesno."""

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
    kind, relation = next(
        ((k, v) for k, v in (("company", "founded"), ("work", "year"), ("city", "charter")) if k in starts),
        ("company", "founded"),
    )
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
    return Question(
        f"Was {a.name} {verb} before {b.name}?", ("yes" if truth else "no",), (first, second), "yesno"
    )


_MAKERS = {"single": _single, "hop": _hop, "comparison": _comparison, "yesno": _yesno}


# ---- solver --------------------------------------------------------------------------------------
# Proof that the benchmark is sound: a rule-based reader of the passages, and one that sees only the
# question.


def _pattern(template: str, **known: str) -> re.Pattern[str]:
    """A wording as a regex: known fields literally, the others captured by name."""
    parts = re.split(r"\{(\w+)\}", template.rstrip("."))
    out = [
        re.escape(p) if i % 2 == 0 else re.escape(known[p]) if p in known else rf"(?P<{p}>.+?)"
        for i, p in enumerate(parts)
    ]
    return re.compile("".join(out))


def fact(passages: Sequence[str], kind: str, relation: str, name: str) -> str | None:
    """The value of a relation as a passage states it."""
    for template in SENTENCES[kind][relation]:
        pattern = re.compile(r"(?:^|(?<=\. ))" + _pattern(template, name=name).pattern + r"(?=\.(?: |$))")
        for text in passages:
            found = pattern.search(text)
            if found:
                return found["value"]
    return None


def solve(question: str, passages: Sequence[str]) -> str | None:
    """The answer read from the passages, or None when they do not state it."""
    for kind, relations in SINGLE.items():
        for relation, form in relations.items():
            asked = _pattern(form).fullmatch(question)
            if asked and (value := fact(passages, kind, relation, asked["name"])):
                return value
    for (kind, bridge), forms in HOPS.items():
        for relation, form in forms.items():
            asked = _pattern(form).fullmatch(question)
            person = fact(passages, kind, bridge, asked["name"]) if asked else None
            if person and (value := fact(passages, "person", relation, person)):
                return value
    return _compare(question, passages)


def _compare(question: str, passages: Sequence[str]) -> str | None:
    asked = re.fullmatch(
        r"Which .+? earlier, (?P<a>.+) or (?P<b>.+)\?|Was (?P<c>.+) (?:founded|published|chartered) before (?P<d>.+)\?",
        question,
    )
    if not asked:
        return None
    a, b = (asked["a"], asked["b"]) if asked["a"] else (asked["c"], asked["d"])
    for kind, relation in (("company", "founded"), ("work", "year"), ("city", "charter")):
        years = [fact(passages, kind, relation, name) for name in (a, b)]
        if all(years):
            first = int(years[0] or 0) < int(years[1] or 0)
            return (a if first else b) if asked["a"] else ("yes" if first else "no")
    return None


def guess(question: str) -> str:
    """The best answer without context: the first thing named, or yes."""
    asked = re.search(r"earlier, (.+) or ", question)
    return asked[1] if asked else "yes" if question.startswith("Was ") else ""
