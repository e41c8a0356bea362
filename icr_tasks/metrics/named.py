"""Who is named, and how many: names and numbers as a response has them, letter for letter."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import scorers
from .extract import extract_answer

if TYPE_CHECKING:
    from ..benchmarks.base import Item

_NUMBERS = re.findall(
    r"\S+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four",
)
_NUMBER = re.compile(r"\b(?:\d+|" + "|".join(sorted(_NUMBERS, key=len, reverse=True)) + r")\b", re.I)


@scorers.metric("nolima", reads="text")
def contains(text: str, item: Item) -> float:
    """Whether the name stands in the response."""
    return float(item.answers[0] in text)


@scorers.metric("nolima_last", reads="text")
def in_last_line(text: str, item: Item) -> float:
    """Whether the name stands in the response's last line."""
    rows = text.strip().splitlines()
    return float(bool(rows) and item.answers[0] in rows[-1])


@scorers.metric("order", reads="text")
def order(text: str, item: Item) -> float:
    """By the item's `kind_of_answer`: 1 for the right person and no other of its `candidates`, or the right number
    (`count`) and no other; for a `set` the F1 of the people named. Read in the extracted answer."""
    said, kind, gold = extract_answer(text).text, item.fields["kind_of_answer"], set(item.fields["gold"])
    if kind == "count":
        return float(_numbers(said) == gold)
    low = said.lower()
    named = {who for who in item.fields["candidates"] if who.lower() in low}
    if kind != "set":
        return float(named == gold)
    hits = len(named & gold)
    if not hits:
        return 0.0
    strangers = max(len([p for p in re.split(r",|;|\n|\band\b", said) if p.strip()]) - len(named), 0)
    return 2 * hits / (len(named) + strangers + len(gold))


def _numbers(text: str) -> set[str]:
    """Every number up to 24 that stands in the text as a word, and all in digits."""
    words = [found.group().lower() for found in _NUMBER.finditer(text)]
    return {word if word.isdigit() else str(_NUMBERS.index(word)) for word in words}
