"""LongBench-v2: the official letter extraction (pred.py extract_answer) and accuracy."""

from __future__ import annotations

import re

from .extract import strip_thoughts

_FORMS = (re.compile(r"The correct answer is \(([A-D])\)"), re.compile(r"The correct answer is ([A-D])"))


def letter(generation: str) -> str | None:
    """The letter by the official rule: `*` removed, case-sensitive, first match; None counts as wrong."""
    text = generation.replace("*", "")
    for form in _FORMS:
        found = form.search(text)
        if found:
            return found[1]
    return None


def score(generation: str, gold: str) -> dict[str, float]:
    """acc and parsed of one item; thoughts before the answer are not searched."""
    got = letter(strip_thoughts(generation))
    return {"acc": float(got == gold), "parsed": float(got is not None)}
