"""Proof that the benchmark is sound: a rule-based reader of the passages, and one that sees only the question."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .questions import HOPS, SINGLE
from .texts import SENTENCES


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
    asked = re.fullmatch(r"Which .+? earlier, (?P<a>.+) or (?P<b>.+)\?|Was (?P<c>.+) (?:founded|published|chartered) before (?P<d>.+)\?", question)  # fmt: skip
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
