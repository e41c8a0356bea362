"""What an answer cites: `[DOC i]` ids, quotes and reproduced documents, in the formats of the paper's Tables
8-9."""

from __future__ import annotations

import re
from collections.abc import Collection

from .extract import strip_thoughts

# Bounded, and line by line: an answer of one mark a million times takes time in proportion to its length, and Python
# reads no number of five thousand digits. A colon may be a full-width one.
_GROUP = re.compile(r"\[\s{0,99}DOC[^\]]{0,999}\]", re.I)
_BARE = re.compile(r"\b(?:DOC|Document)\s+#?(-?\d{1,18})\b", re.I)
_NUMBER = re.compile(r"-?\d+")
_SECTION = re.compile(
    r"^[^\w\n]*relevant\s+(?:document\s*)?(?:ids?|documents?(?:\s+ids?)?)\W*?[:：]\s*(.*?)(?=^[^\w\n]*(?:the\s+)?answer\b|\Z)",
    re.I | re.S | re.M,
)
_QUOTE = re.compile(
    r"(?:Quote|Passage|Extract)\s+\d+\s*[:：]\s*(.*?)(?=(?:Quote|Passage|Extract)\s+\d+\s*[:：]|Relevant Document|The answer is|Answer[:：]|\Z)",
    re.I | re.S,
)
_CONTENT = re.compile(
    r"\[\s*DOC\s+(\d{1,18})\s*\]\s*(.*?)(?=\[\s*DOC\s+\d+\s*\]|(?:The answer is|Answer)\s*[:：]|\Z)",
    re.I | re.S,
)


def cited_ids(text: str) -> list[int]:
    """Distinct document numbers in order of mention; `[DOC 3, DOC 7]`, `[doc 3]` and `DOC 3` count, `[DOC
    -1]` means none.

    Where the answer has a "Relevant documents" section, only that section counts.
    """
    text = strip_thoughts(text)
    section = _SECTION.search(text)
    scope = section[1] if section and (_GROUP.search(section[1]) or _BARE.search(section[1])) else text
    found = [int(n) for group in _GROUP.findall(scope) for n in _NUMBER.findall(group)]
    found = found or [int(n) for n in _BARE.findall(scope)]
    return list(dict.fromkeys(n for n in found if n >= 0))


def prf(cited: Collection[int], gold: Collection[int]) -> tuple[float, float, float]:
    """Precision, recall and F1 of two id sets. Citing nothing is perfect only when there is no gold."""
    cited, gold = set(cited), set(gold)
    if not cited and not gold:
        return 1.0, 1.0, 1.0
    hit = len(cited & gold)
    precision = hit / len(cited) if cited else 0.0
    recall = hit / len(gold) if gold else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if hit else 0.0


def quotes(text: str) -> list[str]:
    """Quoted spans of `Quote i: "..."`, without quotation marks, distinct, in order."""
    found = (q.strip().strip("\"“”'").strip() for q in _QUOTE.findall(strip_thoughts(text)))
    return list(dict.fromkeys(q for q in found if q))


def contents(text: str) -> dict[int, str]:
    """Reproduced documents: id -> text after its tag, first occurrence wins."""
    out: dict[int, str] = {}
    for number, body in _CONTENT.findall(strip_thoughts(text)):
        if body.strip(" ,.\n"):
            out.setdefault(int(number), body.strip())
    return out
