"""Invented names. Train and test never share one: a name belongs to the split its hash says."""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache

_START = ["Bra", "Cor", "Dal", "Dren", "El", "Fal", "Gar", "Hes", "Il", "Jor", "Kal", "Lor", "Mar", "Nel", "Or", "Pel", "Quen", "Ras", "Sel", "Tal", "Ul", "Var", "Wen", "Yor", "Zan", "Bel", "Cas", "Dor", "Fen", "Hal"]  # fmt: skip
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


def _mine(name: str, split: str) -> bool:
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
    return tuple(sorted(n for n in names if _mine(n, split)))


def pick(kind: str, split: str, random_: random.Random) -> str:
    """A name of that kind: first, last, city, title."""
    return random_.choice(_pool(kind, split))


def company(split: str, random_: random.Random, stem: str | None = None) -> tuple[str, str]:
    """(full name, name without its legal suffix)."""
    short = f"{stem or pick('last', split, random_)} {random_.choice(_TRADE)}"
    return f"{short} {random_.choice(_SUFFIX)}", short
