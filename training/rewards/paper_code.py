"""Preset `paper_code`: the weights and parsers of the released code, for comparison only.

It is not equations 1-5: the answer stops at its first period and counts as a substring, ids are scored by F1
against the dataset's own gold, similarity is the best of four (one of which any two English passages share),
R+Judge has no answer term. What that costs is measured in docs/rewards.md. Answers, ids and texts of the row
are those of `Row`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from icr_tasks.metrics.answers import subem_official
from icr_tasks.metrics.citations import prf

from .match import Options, Row, Scores

_ANSWER = re.compile(r"(?i)The answer is:\s*([^\n\.]+)")
_TAG = re.compile(r"(?i)\[DOC\s+[^\]]+?\]")
_LABEL = r"(?:Quote|Passage|Document|Extract|Reference)\s+\d+:"
_QUOTE = re.compile(rf"(?is){_LABEL}\s*(.*?)(?={_LABEL}|Relevant Document IDs?:|The answer is:|$)")
_SECTION = re.compile(r"(?is)Relevant documents:\s*(.*?)(?=The answer is:|$)")
_CONTENT = re.compile(r"(?s)\[DOC\s+(\d{1,9})\]\s*(.*?)(?=\[DOC\s+\d+\]|$)")
_NAMED_BOX = re.compile(r"\\boxed\{\{?Criterion\s+\d+:\s*([01])(?:/[01])?\}?\}")
_ANY_BOX = re.compile(r"\\boxed\{\{?([01])(?:/[01])?\}?\}")
_VERIFIED = 0.8


def _answer(text: str) -> str | None:
    found = _ANSWER.findall(text)
    return found[-1].strip() if found else None


def _correct(text: str, row: Row) -> float:
    answer = _answer(text)
    return 0.0 if answer is None else subem_official(answer, row.answers)


def _f1(text: str, gold: Sequence[int]) -> float:
    named: set[Any] = set(_TAG.findall(text))
    right: set[Any] = {f"[DOC {i}]" for i in gold}
    return prf(named, right)[2]


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def similarity(first: str, second: str) -> float:
    """The best of character-multiset F1, character bigram and trigram Jaccard, word Jaccard, 0-1."""
    a, b = first.lower().strip(), second.lower().strip()
    if not a or not b:
        return 0.0
    shared = sum((Counter(a) & Counter(b)).values())
    grams = (
        _jaccard({a[i : i + n] for i in range(len(a))}, {b[i : i + n] for i in range(len(b))}) for n in (2, 3)
    )
    return max(2 * shared / (len(a) + len(b)), _jaccard(set(a.split()), set(b.split())), *grams)


def ao(texts: Sequence[str], rows: Sequence[Row], options: Options | None = None) -> list[Scores]:
    """SubEM of what follows the last "The answer is:"."""
    return [{"reward": _correct(t, r), "answer": _correct(t, r)} for t, r in zip(texts, rows, strict=True)]


def _id(text: str, row: Row) -> Scores:
    if _answer(text) is None:
        return {"reward": 0.0, "ids": 0.0, "answer": 0.0}
    terms = {"ids": _f1(text, row.original_ids or row.gold_ids), "answer": _correct(text, row)}
    return {"reward": sum(terms.values()), **terms}


def id_(texts: Sequence[str], rows: Sequence[Row], options: Options | None = None) -> list[Scores]:
    """F1 against the gold before refinement, plus the answer; 0 when no answer can be parsed."""
    return [_id(t, r) for t, r in zip(texts, rows, strict=True)]


def _idc(text: str, row: Row) -> Scores:
    section = _SECTION.search(text)
    produced = {int(n): body.strip() for n, body in _CONTENT.findall(section[1] if section else "")}
    gold = dict(zip(row.gold_ids, row.gold_docs, strict=True))
    similar = sum(similarity(produced[i], gold[i]) for i in gold if i in produced) / max(1, len(gold))
    terms = {
        "ids": 1.5 * _f1(text, row.gold_ids),
        "content": similar,
        "answer": 2.0 * _correct(text, row),
        "format": 0.3 * float(section is not None and _answer(text) is not None),
        "irrelevant": -0.3 * len(set(produced) - set(gold)),
    }
    return {"reward": max(0.0, sum(terms.values())), **terms}


def idc(texts: Sequence[str], rows: Sequence[Row], options: Options | None = None) -> list[Scores]:
    """1.5 F1 + similarity + 2 answer + 0.3 format - 0.3 a document too many; 0 to 4.8."""
    return [_idc(t, r) for t, r in zip(texts, rows, strict=True)]


def _matched(quotes: Sequence[str], docs: Sequence[str]) -> int:
    """Pairs of the greedy one-to-one matching at similarity 0.8 or more."""
    pairs = sorted(
        ((similarity(q, d), i, j) for i, q in enumerate(quotes) for j, d in enumerate(docs)), reverse=True
    )
    used: set[tuple[str, int]] = set()
    hits = 0
    for value, i, j in pairs:
        if value >= _VERIFIED and ("q", i) not in used and ("d", j) not in used:
            used |= {("q", i), ("d", j)}
            hits += 1
    return hits


def _idq(text: str, row: Row) -> Scores:
    quotes = list(dict.fromkeys(q.strip() for q in _QUOTE.findall(text) if len(q.strip()) > 5))[:10]
    hits = _matched(quotes, row.gold_docs)
    extra = sum(0.1 + 0.02 * (n - 30) for n in (len(q.split()) for q in quotes) if n > 30)
    terms = {
        "precision": hits / len(quotes) if quotes else 0.0,
        "coverage": hits / len(row.gold_docs) if row.gold_docs else 0.0,
        "ids": _f1(text, row.gold_ids) if hits else 0.0,
        "answer": _correct(text, row),
        "format": 0.2 * float(bool(quotes) and bool(_TAG.search(text)) and _answer(text) is not None),
        "length": -0.1 * min(1.0, extra),
    }
    return {"reward": max(0.0, sum(terms.values())), **terms}


def idq(texts: Sequence[str], rows: Sequence[Row], options: Options | None = None) -> list[Scores]:
    """Precision + coverage + F1 (once a quote verifies) + answer + 0.2 format - length penalty; 0 to 4.2."""
    return [_idq(t, r) for t, r in zip(texts, rows, strict=True)]


def _boxes(reply: str | None) -> float:
    if reply is None:
        return float("nan")
    found = _NAMED_BOX.findall(reply) or _ANY_BOX.findall(reply)[:3]
    return float(min(3, sum(int(v) for v in found)))


def judge(
    texts: Sequence[str],
    rows: Sequence[Row],
    options: Options | None = None,
    *,
    replies: Sequence[str | None],
) -> list[Scores]:
    """The sum of all boxed criteria, drafts in thoughts included, at most 3. NaN only where there is no
    reply."""
    return [{"reward": _boxes(r), "judge": _boxes(r)} for _, _, r in zip(texts, rows, replies, strict=True)]


# The most each reward can be.
BEST = {"ao": 1.0, "id": 2.0, "idc": 4.8, "idq": 4.2, "judge": 3.0}
REWARDS: dict[str, Callable[..., list[Scores]]] = {
    "ao": ao,
    "id": id_,
    "idc": idc,
    "idq": idq,
    "judge": judge,
}
