"""Contexts of a nominal length: so many tokens of a fixed number of characters each, whatever tokenizer reads them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from ..errors import IcrError
from .base import Unit


def filled(needed: Collection[Unit], others: Iterable[Unit], chars: int) -> list[Unit]:
    """What is needed and, up to the first that `chars` characters do not hold, the others in their order."""
    units, left = list(needed), chars - sum(len(unit.text) for unit in needed)
    for unit in others:
        if len(unit.text) > left:
            break
        left -= len(unit.text)
        units.append(unit)
    return units


def mixed(units: Iterable[Unit]) -> list[Unit]:
    """Each unit once, in an order that says nothing of what is gold, and keeps that of a shorter context in a longer
    one."""
    once = {unit.id: unit for unit in units}
    return sorted(once.values(), key=lambda u: hashlib.sha256(f"order/{u.id}".encode()).hexdigest())


def planted(book: Path, needle: str, chars: int, depth: float, start: float) -> list[Unit]:
    """A stretch of the book, whole sentences from the share `start` of it on, with the needle at `depth`: a unit of
    its own. Raises IcrError for a book that is too short."""
    text = book.read_text(encoding="utf-8")
    size = chars - len(needle)
    if len(text) < size:
        raise IcrError(f"{book}: {len(text)} characters, at least {size} are needed; fetch the file again")
    at = int(start * (len(text) - size))
    sentences = re.split(r"(?<=[.!?])\s+", text[at : at + size])
    place = round(depth * len(sentences))
    parts = [(" ".join(sentences[:place]), False), (needle, True), (" ".join(sentences[place:]), False)]
    return [Unit(f"n-{n}", part, gold=gold) for n, (part, gold) in enumerate(parts) if part]
