"""icr_synth_latent: question and evidence share no content word, so matching words finds nothing.

What links them is a class that everybody knows (a cello is a string instrument), or facts of the fictional
world that stand in other passages (the inn is in that town, the town in that province). The idea is NoLiMa's
(arXiv 2502.05167); names, texts and questions are generated here, at any length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import IcrError
from ..metrics import scorers
from . import helmet_rag as helmet
from .base import Item, ItemSet, Unit
from .declare import benchmark, grid, whole
from .paper_prompts import PROMPTS
from .synth import DEPTHS, names, parts
from .synth import PASSAGES as ALL_PASSAGES

VERSION = "1"
PASSAGES = {size: n for size, n in ALL_PASSAGES.items() if n >= 5}
KINDS = ("class", "link", "chain")  # one, two and three passages are needed
_CYCLE = ("class", "link", "class", "link", "chain")
CLASSES = {
    "insects": (
        "a row of beehives",
        "a case of pinned butterflies",
        "an ant colony under glass",
        "jars of fireflies",
    ),
    "string instruments": ("an old violin", "a cello", "a mandolin", "a harp"),
    "brass instruments": ("a dented trumpet", "a trombone", "a tuba", "a cornet"),
    "citrus fruit": ("lemon trees", "baskets of oranges", "limes", "grapefruits"),
    "freshwater fish": ("trout", "carp", "pike", "perch"),
    "precious stones": ("rubies", "sapphires", "emeralds", "opals"),
    "optical devices": ("a telescope", "a microscope", "a spyglass", "field glasses"),
    "footwear": ("riding boots", "sandals", "wooden clogs", "felt slippers"),
    "timepieces": ("an hourglass", "a sundial", "a pendulum clock", "a chronometer"),
    "birds of prey": ("falcons", "a hawk", "a lame eagle", "kestrels"),
    "spices": ("cinnamon", "saffron", "nutmeg", "cardamom"),
    "board games": ("chess", "draughts", "backgammon", "nine men's morris"),
    "weapons": ("a crossbow", "sabres", "a rusty halberd", "daggers"),
    "vehicles on water": ("a canoe", "a raft", "a sloop", "two dinghies"),
}
_EVIDENCE = (
    "{name} spent every free hour with {thing}.",
    "Nothing mattered to {name} as much as {thing}.",
    "In the house of {name} everything turned on {thing}.",
)
_ROOM = (
    "{name} rents the room above {inn}.",
    "{name} sleeps over {inn}.",
    "For years {name} has kept a bed at {inn}.",
)
_INN = ("{inn} is an inn in {city}.", "In {city} there is an inn called {inn}.")
_TOWN = ("{city} belongs to the province of {land}.", "The province of {land} takes in {city}.")
_ASK = {
    "class": "Which person was a devotee of {what}?",
    "link": "Which person lodges in {what}?",
    "chain": "Which person lodges in the province of {what}?",
}


@dataclass(frozen=True)
class Chain:
    """One person and what leads to that person, before it is text."""

    kind: str
    name: str
    what: str  # what the question names
    thing: str = ""
    inn: str = ""
    city: str = ""

    @property
    def question(self) -> str:
        """The question that this chain answers."""
        return _ASK[self.kind].format(what=self.what)

    def facts(self, r: Any) -> list[tuple[str, str]]:
        """(title, sentence) of each passage: the evidence first, then what links it to the question."""
        if self.kind == "class":
            return [(self.name, r.choice(_EVIDENCE).format(name=self.name, thing=self.thing))]
        found = [(self.name, r.choice(_ROOM).format(name=self.name, inn=self.inn))]
        found.append((self.inn, r.choice(_INN).format(inn=self.inn, city=self.city)))
        if self.kind == "chain":
            found.append((self.city, r.choice(_TOWN).format(city=self.city, land=self.what)))
        return found


def load(
    dataset: str = "all",
    length: str | None = None,
    *,
    seed: int = 0,
    n: int = 100,
    split: str = "test",
    kinds: Sequence[str] = (),
    passages: int | None = None,
    depths: Sequence[float] = DEPTHS,
    **_: Any,
) -> ItemSet:
    """`n` questions at a nominal length, the same at every length; the evidence cycles through `depths`.

    `kinds` (class, link, chain) sets the difficulty: how many passages lead from the question to the person.
    Deterministic in all arguments. Raises IcrError for unknown names and for too few passages.
    """
    k = parts.count(length, passages, PASSAGES, split, kinds, KINDS)
    if k < 5:
        raise IcrError(f"{k} passages leave no room for a chain of three among others; use at least 5")
    cycle = [kind for kind in _CYCLE if not kinds or kind in kinds]
    items = []
    for number in range(n):
        kind, depth = cycle[number % len(cycle)], depths[number % len(depths)]
        r = names.rng("latent", VERSION, seed, split, number)
        chain = _chain(kind, split, r, set(), set())
        name = f"latent-{VERSION}-{split}-{seed}-{number}"
        keys = {"length": length or f"{k} passages", "depth": depth, "kind": kind}
        units = partial(_units, chain, seed, split, number, depth, k)
        items.append(Item(name, chain.question, (chain.name,), name, units, keys=keys))
    return ItemSet(items, n, "generated", f"{VERSION}-{split}-seed{seed}", True)


def _chain(kind: str, split: str, r: Any, taken: set[str], classes: set[str]) -> Chain:
    """A chain whose names are not `taken` and whose class is not among `classes`."""

    def fresh(make: Any) -> str:
        while (found := make()) in taken:
            pass
        taken.add(found)
        return found

    name = fresh(lambda: f"{names.pick('first', split, r)} {names.pick('last', split, r)}")
    if kind == "class":
        what = r.choice([c for c in CLASSES if c not in classes])
        return Chain(kind, name, what, thing=r.choice(CLASSES[what]))
    inn = fresh(lambda: f"{names.pick('title', split, r)} of {names.pick('last', split, r)}")
    city = fresh(lambda: names.pick("city", split, r))
    land = fresh(lambda: names.pick("last", split, r)) if kind == "chain" else city
    return Chain(kind, name, land, inn=inn, city=city)


def _units(chain: Chain, seed: int, split: str, number: int, depth: float, k: int) -> list[Unit]:
    """Passages in prompt order: the evidence at `depth`, all others in seeded order."""
    r = names.rng("latent", VERSION, seed, split, number, "passages", k)
    evidence, *links = [_unit(title, text, r, gold=True) for title, text in chain.facts(r)]
    taken = {chain.name, chain.inn, chain.city, chain.what}
    classes = {chain.what} if chain.kind == "class" else set()
    others: list[Unit] = []
    while len(others) < k - 1 - len(links):
        other = _chain(r.choice(_CYCLE), split, r, taken, classes)
        others += [_unit(title, text, r) for title, text in other.facts(r)]
    others = others[: k - 1 - len(links)] + links
    r.shuffle(others)
    others.insert(min(round(depth * (k - 1)), k - 1), evidence)
    return others


def _unit(title: str, sentence: str, r: Any, *, gold: bool = False) -> Unit:
    """A passage with one fact."""
    text = parts.around(sentence, ("person", "city"), r)
    return Unit("l-" + title.lower().replace(" ", "-"), text, title, gold=gold)


# ---- solver --------------------------------------------------------------------------------------
# A reader that knows the classes and follows the links: proof that the gold passages suffice.


def solve(question: str, passages: Sequence[str]) -> str | None:
    """The person, read from the passages; None when they do not lead to one."""
    for what, things in CLASSES.items():
        if question == _ASK["class"].format(what=what):
            return next((f["name"] for f in parts.stated(passages, _EVIDENCE) if f["thing"] in things), None)
    asked = re.fullmatch(_ASK["link"].format(what="(.+)").replace("?", r"\?"), question)
    if asked is None:
        return None
    place = asked[1]
    if place.startswith("the province of "):
        land = place.removeprefix("the province of ")
        cities = {f["city"] for f in parts.stated(passages, _TOWN) if f["land"] == land}
    else:
        cities = {place}
    inns = {f["inn"] for f in parts.stated(passages, _INN) if f["city"] in cities}
    return next((f["name"] for f in parts.stated(passages, _ROOM) if f["inn"] in inns), None)


@benchmark(
    "synth_latent",
    title="Synth latent",
    units="passages",
    marks_gold=True,
    chance=None,
    metrics=scorers.BUNDLES["qa"],
    prompts=PROMPTS,
    source="generated by icr_tasks.benchmarks.synth_latent",
    revision=VERSION,
    license="Apache-2.0",
    **helmet.SUBEM,
    cluster="question",
    breakdown=["kind", "depth"],
)
class SynthLatent:
    """Generated from a seed: nothing to fetch, contamination-free, checked by a solver."""

    tasks = grid(length=PASSAGES)
    groups = [whole("icr_synth_latent", "synth latent", tasks, "subem")]
    load = staticmethod(load)
    files = None
