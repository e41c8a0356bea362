"""A list on the last line, `Final Answer: [a, b]`: the F1 of what it names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import answer_lines, scorers

if TYPE_CHECKING:
    from ..benchmarks.base import Item

_LINE = re.compile(r"[\s*_`]*Final Answer:?[\s*_`]*\[([^\[\]]*)\][\s*_`.]*", re.I)


def listed(text: str) -> set[str] | None:
    """What a line in that form names; None for a line in another.

    >>> sorted(listed("**Final Answer: ['a', b]**"))
    ['a', 'b']
    """
    found = _LINE.fullmatch(text)
    if found is None:
        return None
    return {word for part in found[1].split(",") if (word := part.strip().strip("'\"`*"))}


def _f1(said: set[str] | None, item: Item) -> float:
    """F1 of two sets. Two empty sets agree: 1 (lm-eval's graphwalks gives 0 there)."""
    return 0.0 if said is None else answer_lines.f1(said, listed(item.answers[0]) or set())


@scorers.metric("graph_f1", reads="text")
def last_line(text: str, item: Item) -> float:
    """F1 of what the very last line names, which must have the form that the prompt asks for."""
    rows = text.strip().splitlines()
    return _f1(listed(rows[-1]) if rows else None, item)


@scorers.metric("graph_f1_any", reads="text")
def any_line(text: str, item: Item) -> float:
    """F1 of what the last line that has the form names."""
    found = [named for row in text.splitlines() if (named := listed(row)) is not None]
    return _f1(found[-1] if found else None, item)


@scorers.metric("graph_answered", reads="text")
def answered(text: str, item: Item) -> float:
    """Whether a line has the form at all."""
    return float(any(listed(row) is not None for row in text.splitlines()))
