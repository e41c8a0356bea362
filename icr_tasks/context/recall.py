"""How much of the evidence a selection kept: by gold passages where they are marked, else by the answer's text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..data.item import Item, Unit


def answers(item: Item) -> list[str]:
    """Answers as they could stand in the text: option texts for letters; [] when no short text would (summaries)."""
    found = list(item.answers)
    if item.options and all(a in "ABCD" and len(a) == 1 for a in found):
        found = [item.options["ABCD".index(a)] for a in found]
    return [a for a in found if 1 < len(a) <= 200]


def contains(text: str, needles: Sequence[str]) -> bool:
    """Whether an answer occurs as whole words, whatever its case and spacing."""
    if not needles:
        return False
    flat = _flat(text)
    for needle in map(_flat, needles):
        at = flat.find(needle)
        while at >= 0:
            before, after = flat[at - 1 : at], flat[at + len(needle) : at + len(needle) + 1]
            if not (before.isalnum() and needle[0].isalnum()) and not (after.isalnum() and needle[-1].isalnum()):
                return True
            at = flat.find(needle, at + 1)
    return False


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()


def recall(item: Item, units: Sequence[Unit], kept: Sequence[Unit], marked: bool) -> tuple[float | None, str | None]:
    """(share of the evidence kept, "ids" or "answer"); (None, None) where the evidence is not known.

    By ids with `marked` passages; else 1 or 0 for an answer that occurs in the context at all.
    """
    gold = {id(u): u.id for u in units if u.gold}
    if marked:
        left = sum(u.gold for u in kept)
        return (left / len(gold), "ids") if gold else (None, None)
    needles = answers(item)
    if any(contains(u.text, needles) for u in kept):
        return 1.0, "answer"
    return (0.0, "answer") if any(contains(u.text, needles) for u in units) else (None, None)
