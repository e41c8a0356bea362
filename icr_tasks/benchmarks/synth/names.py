"""Invented names. Train and test never share one: a name belongs to the split its hash says."""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache

_START = [
    "Bra",
    "Cor",
    "Dal",
    "Dren",
    "El",
    "Fal",
    "Gar",
    "Hes",
    "Il",
    "Jor",
    "Kal",
    "Lor",
    "Mar",
    "Nel",
    "Or",
    "Pel",
    "Quen",
    "Ras",
    "Sel",
    "Tal",
    "Ul",
    "Var",
    "Wen",
    "Yor",
    "Zan",
    "Bel",
    "Cas",
    "Dor",
    "Fen",
    "Hal",
]
_MIDDLE = ["a", "e", "i", "o", "u", "an", "en", "ar", "or", "il", "em", "ov", "ur", "ith", "and", "ess"]
_LAST = [
    "dell",
    "mund",
    "vik",
    "rath",
    "lin",
    "wick",
    "ster",
    "nard",
    "holm",
    "brook",
    "vane",
    "mire",
    "field",
    "croft",
    "stead",
    "ton",
    "by",
    "ridge",
    "mark",
    "low",
]
_FIRST_END = ["a", "as", "el", "en", "ia", "in", "is", "o", "on", "us", "wyn"]
_CITY_END = ["burg", "haven", "mouth", "ford", "stad", "port", "field", "minster", "gate", "moor"]
_TITLE_A = [
    "Silent",
    "Hollow",
    "Amber",
    "Distant",
    "Broken",
    "Seventh",
    "Winter",
    "Gilded",
    "Crooked",
    "Hidden",
    "Burning",
    "Pale",
    "Salted",
    "Quiet",
    "Northern",
]
_TITLE_B = [
    "Lantern",
    "Orchard",
    "Tide",
    "Meridian",
    "Garden",
    "Ledger",
    "Bridge",
    "Harvest",
    "Mirror",
    "Parliament",
    "Compass",
    "Window",
    "Ferry",
    "Almanac",
    "Quarry",
]
_TRADE = [
    "Optics",
    "Textiles",
    "Shipping",
    "Instruments",
    "Paper",
    "Ceramics",
    "Railways",
    "Brewing",
    "Glassworks",
    "Printing",
    "Foundry",
    "Clockworks",
]
_SUFFIX = ("Ltd", "Inc", "Company", "Works")
OCCUPATIONS = [
    "botanist",
    "cartographer",
    "composer",
    "sculptor",
    "surgeon",
    "astronomer",
    "playwright",
    "locksmith",
    "judge",
    "glassblower",
    "linguist",
    "navigator",
    "apothecary",
    "engraver",
    "beekeeper",
    "violinist",
]
GENRES = ["novel", "play", "symphony", "poem", "opera", "essay", "travelogue", "ballad"]
PRODUCTS = [
    "barometers",
    "looms",
    "lanterns",
    "ferries",
    "telescopes",
    "ledgers",
    "porcelain",
    "carriages",
    "clocks",
    "bells",
    "maps",
    "harps",
]


def rng(*key: object) -> random.Random:
    """A generator that depends on the key alone, on every machine and Python."""
    return random.Random(int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:8], "big"))


def belongs(name: str, split: str) -> bool:
    """Whether a name is one of the split's: half of all names are never seen in training."""
    return (hashlib.sha256(name.encode()).digest()[0] % 2 == 0) == (split == "test")


@lru_cache(maxsize=64)
def _pool(kind: str, split: str) -> tuple[str, ...]:
    parts = {"last": _LAST, "first": _FIRST_END, "city": _CITY_END}
    if kind == "title":
        names = {f"The {a} {b}" for a in _TITLE_A for b in _TITLE_B}
    elif kind == "first":
        names = {s + e for s in _START for e in _FIRST_END} | {
            s + m + e for s in _START for m in ("l", "r", "n", "m") for e in _FIRST_END
        }
    else:
        names = {s + m + e for s in _START for m in _MIDDLE for e in parts[kind]}
    return tuple(sorted(n for n in names if belongs(n, split)))


def pick(kind: str, split: str, random_: random.Random) -> str:
    """A name of that kind: first, last, city, title."""
    return random_.choice(_pool(kind, split))


def company(split: str, random_: random.Random, stem: str | None = None) -> tuple[str, str]:
    """(full name, name without its legal suffix)."""
    short = f"{stem or pick('last', split, random_)} {random_.choice(_TRADE)}"
    return f"{short} {random_.choice(_SUFFIX)}", short


# ---- texts ---------------------------------------------------------------------------------------
# Wordings. Every fact sentence names its entity, so a passage can be read alone.

SENTENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "person": {
        "born_in": (
            "{name} was born in {value}.",
            "The birthplace of {name} is {value}.",
            "{name} came into the world in {value}.",
        ),
        "born_on": (
            "The birth of {name} is recorded on {value}.",
            "{name} was born on {value}.",
            "The date of birth of {name} is {value}.",
        ),
        "occupation": (
            "{name} worked as a {value}.",
            "By profession {name} was a {value}.",
            "{name} made a living as a {value}.",
        ),
    },
    "company": {
        "founder": (
            "{name} was founded by {value}.",
            "The founder of {name} is {value}.",
            "{value} established {name}.",
        ),
        "based_in": (
            "{name} has its headquarters in {value}.",
            "The head office of {name} is in {value}.",
            "{name} is based in {value}.",
        ),
        "founded": (
            "{name} opened for business in {value}.",
            "The founding year of {name} is {value}.",
            "{name} dates from {value}.",
        ),
        "product": (
            "{name} is known for its {value}.",
            "The main product of {name} was {value}.",
            "{name} made {value}.",
        ),
    },
    "work": {
        "author": (
            "{name} was written by {value}.",
            "The author of {name} is {value}.",
            "{value} wrote {name}.",
        ),
        "year": (
            "{name} first appeared in {value}.",
            "The year of publication of {name} is {value}.",
            "{name} was published in {value}.",
        ),
        "genre": (
            "{name} is a {value}.",
            "{name} is usually called a {value}.",
            "Libraries list {name} as a {value}.",
        ),
    },
    "city": {
        "river": (
            "{name} lies on the river {value}.",
            "The river {value} runs through {name}.",
            "{name} grew up beside the river {value}.",
        ),
        "charter": (
            "{name} received its charter in {value}.",
            "The town charter of {name} was sealed in {value}.",
            "{name} became a town in {value}.",
        ),
        "known_for": (
            "{name} is known for its {value}.",
            "Traders came to {name} for {value}.",
            "The fair of {name} sold {value}.",
        ),
    },
}

FILLER: dict[str, tuple[str, ...]] = {
    "person": (
        "Letters from that time describe a patient and rather private character with a dry sense of humour.",
        "Most of the early papers were lost in a fire, and later accounts often repeat each other.",
        "Neighbours remembered long walks at dawn and a habit of taking notes on loose scraps of paper.",
        "A portrait by an unknown hand was found in an attic and now hangs in a small reading room.",
        "Several streets and one modest prize keep the memory of {name} alive among local readers.",
        "Critics of the period were divided, though few denied the care that went into every detail.",
        "The family kept few records, so much of what is told about the childhood rests on hearsay.",
        "Students spoke of a strict but generous teacher who never refused a good question.",
    ),
    "company": (
        "The firm survived two lean decades by repairing what others had thrown away.",
        "Its workers formed a choir that still sings at the yearly meeting of the shareholders.",
        "An old account book of {name} shows that the first customers paid in grain and firewood.",
        "A flood destroyed the archive, and the early history had to be pieced together from invoices.",
        "Visitors could watch the workshop through a long gallery of narrow windows.",
        "Rivals copied the designs within a few seasons, yet rarely reached the same quality.",
        "The sign above the gate was repainted every spring by the youngest apprentice.",
        "Trade journals praised the steady prices and the short waiting times.",
    ),
    "work": (
        "Early reviewers complained about its length, while later readers praised its quiet tone.",
        "Only a handful of first copies survive, most of them with notes in the margins.",
        "The manuscript was carried across three borders before a printer accepted it.",
        "A shortened edition for schools made {name} familiar to a wider public.",
        "Translators have struggled with its puns and with the long description of the harbour.",
        "The central character never receives a name, which has puzzled commentators ever since.",
        "A stage version closed after nine evenings but is still quoted in handbooks.",
        "Collectors look for the blue binding, which was used for a single printing.",
    ),
    "city": (
        "The old market hall burned twice and was rebuilt each time with thicker walls.",
        "Travellers praise the view from the northern gate and complain about the steep lanes.",
        "A tram line once linked the lower quarter with the orchards on the hill.",
        "In winter the fog can last for weeks, and the lamps of {name} burn at noon.",
        "The town library owns a large collection of weather diaries kept by local teachers.",
        "Twice a year the shops close early for a procession whose origin nobody can explain.",
        "Several films were shot in the narrow streets behind the granary.",
        "The local dialect keeps words that neighbouring towns gave up long ago.",
    ),
}
