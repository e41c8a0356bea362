"""Readers of stage 1 beside HotpotQA and 2Wiki: MuSiQue's official file, and any QA set as plain records.

A plain record (`--records`, JSON lines, JSON or parquet) has `question`, `answers` (a text or a list;
`answer` too), `evidence` (texts, or {"title": ..., "text": ...}), and may have `id`, `domain` (medical, legal
...), `dataset` and `documents` (more texts of the same kind, which join the corpus the distractors are drawn
from).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from icr_tasks.errors import IcrError

Record = dict[str, Any]


def given(value: Any) -> Any:
    """The value, None for NaN: what tables of numbers have where a cell is empty."""
    return None if isinstance(value, float) and math.isnan(value) else value


def parts(value: Any) -> list[tuple[str, str]]:
    """(title, text) of texts or {"title", "text"} mappings; empty texts are left out."""
    out, value = [], given(value)
    if value is not None and (not isinstance(value, Iterable) or isinstance(value, bytes)):
        raise IcrError(f"{value!r} is no text; evidence and documents are texts, or title and text")
    for one in [value] if isinstance(value, str | Mapping) else list(value if value is not None else []):
        if (one := given(one)) is None:
            continue
        if not isinstance(one, str | Mapping):
            raise IcrError(f"{one!r} is no text; evidence and documents are texts, or title and text")
        title, text = (
            ("", one) if isinstance(one, str) else (given(one.get(n)) or "" for n in ("title", "text"))
        )
        if str(text).strip():
            out.append((str(title), " ".join(str(text).split())))
    return out


def musique(record: Record) -> tuple[Record | None, str]:
    """(row, "kept"), or (None, why not), of an official MuSiQue record. KeyError for another format."""
    if record.get("answerable") is False:
        return None, "dropped: not answerable"
    evidence = [(p["title"], p["paragraph_text"]) for p in record["paragraphs"] if p["is_supporting"]]
    answers = [record["answer"], *record.get("answer_aliases", [])]
    row = {
        "id": f"musique-{record['id']}",
        "dataset": "musique",
        "domain": "wikipedia",
        "kind": str(record["id"])[:4],
    }
    return _row(row, record["question"], answers, evidence)


def plain(record: Record) -> tuple[Record | None, str]:
    """(row, "kept"), or (None, why not), of a plain record. IcrError when it has no question or no
    answers."""
    missing = [n for n in ("question", "evidence") if n not in record]
    if missing or not {"answers", "answer"} & record.keys():
        raise IcrError(
            f"a record has no {' and no '.join(missing or ['answers'])} (it has "
            f"{', '.join(sorted(record))}); "
            "records need question, answers and evidence (docs/training_data.md)"
        )
    domain = _text(record.get("domain")) or "records"
    question, evidence = _text(record["question"]), parts(record["evidence"])
    answers = said(record.get("answers", record.get("answer")))
    # The question alone names no record: one question may be asked of many documents.
    body = json.dumps([question, answers, evidence], ensure_ascii=False)
    name = _text(record.get("id")) or hashlib.sha256(body.encode("utf-8", "replace")).hexdigest()[:12]
    row = {"id": name, "dataset": _text(record.get("dataset")) or domain, "domain": domain, "kind": ""}
    return _row(row, question, answers, evidence)


def _text(value: Any) -> str:
    """A value as text, "" for what is null; a whole number that a table kept as a float (1889.0) without its point."""
    value = given(value)
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def said(value: Any) -> list[str]:
    """Answers as texts: one or many, texts or numbers; what is null is none. IcrError for anything else."""
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    out = []
    for one in value if many else [value]:
        if isinstance(one, bool) or not isinstance(one, str | int | float | None):
            raise IcrError(f"answer {one!r} is neither text nor number")
        out += [] if given(one) is None else [_text(one)]
    return out


def _row(
    row: Record, question: str, answers: list[str], evidence: list[tuple[str, str]]
) -> tuple[Record | None, str]:
    # An answer is read from one line, so one of two lines could never be earned.
    answers = list(dict.fromkeys(" ".join(a.split()) for a in answers if a and a.strip()))
    if not question.strip():
        return None, "dropped: no question"
    if not answers:
        return None, "dropped: no answer"
    if not evidence:
        return None, "dropped: no evidence"
    found = {"question": question.strip(), "answers": answers}
    return row | found | {
        "gold_titles": [t for t, _ in evidence],
        "gold_texts": [x for _, x in evidence],
    }, "kept"


def documents(record: Record) -> Iterator[tuple[str, str]]:
    """(title, text) of what a record brings to the corpus: its documents, or MuSiQue's paragraphs."""
    yield from parts(record.get("documents"))
    for p in record.get("paragraphs") or []:
        yield p["title"], p["paragraph_text"]
