"""Dates in a text, in any order: "4 July 1776", "July 4th, 1776", "1776-07-04" are (1776, 7, 4).

Own rules: dateutil and dateparser read "May", "10" and "1066" as dates (docs/metrics.md has the table).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Date = tuple[int | None, int | None, int | None]
_NAMES = "january february march april may june july august september october november december"
_MONTHS = _NAMES.split()
_MONTH = (
    {name: n for n, name in enumerate(_MONTHS, 1)}
    | {name[:3]: n for n, name in enumerate(_MONTHS, 1)}
    | {"sept": 9}
)


def date_of(words: Sequence[str]) -> Date | None:
    """(year, month, day) where all words are a date with a month's name; None for anything else."""
    year = month = day = None
    for word in words:
        if word in _MONTH and month is None:
            month = _MONTH[word]
        elif len(word) <= 2 and word.isdecimal() and 1 <= int(word) <= 31 and day is None:
            day = int(word)
        elif word.isdecimal() and len(word) in (3, 4) and year is None:
            year = int(word)
        elif word not in ("of", "on", "in", "ad", "ce"):
            return None
    return (year, month, day) if month is not None and (day is not None or year is not None) else None


_NUMERIC_DATE = re.compile(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})\b|\b(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})\b")


def dates_in(words: Sequence[str], text: str) -> set[Date]:
    """All dates of a text: month names with the numbers around them, and numeric ones in both orders."""
    found: set[Date] = set()
    for at, word in enumerate(words):
        if word in _MONTH:
            for low in range(max(0, at - 3), at + 1):
                for high in range(at + 1, min(len(words), at + 4) + 1):
                    if (date := date_of(words[low:high])) is not None:
                        found.add(date)
    for m in _NUMERIC_DATE.finditer(text):
        if m[1]:
            found.add((int(m[1]), int(m[2]), int(m[3])))
        else:
            found |= {(int(m[6]), int(m[4]), int(m[5])), (int(m[6]), int(m[5]), int(m[4]))}
    # a day of a month is in that month
    return found | {(year, month, None) for year, month, _ in found if year is not None}
