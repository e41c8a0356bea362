"""Readers of stage 1 beside HotpotQA and 2Wiki: MuSiQue's official file, and any QA set as plain records.

A plain record (`--records`, JSON lines, JSON or parquet) has `question`, `answers` (a text or a list;
`answer` too), `evidence` (texts, or {"title": ..., "text": ...}), and may have `id`, `domain` (medical, legal
...), `dataset` and `documents` (more texts of the same kind, which join the corpus the distractors are drawn
from).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from icr_tasks.errors import IcrError

Record = dict[str, Any]


def parts(value: Any) -> list[tuple[str, str]]:
    """(title, text) of texts or {"title", "text"} mappings; empty texts are left out."""
    out = []
    for one in [value] if isinstance(value, str | Mapping) else list(value if value is not None else []):
        title, text = ("", one) if isinstance(one, str) else (one.get("title") or "", one.get("text") or "")
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
    answers = record.get("answers", record.get("answer"))
    answers = [answers] if isinstance(answers, str) else [str(a) for a in (answers or [])]
    domain = str(record.get("domain") or "records")
    name = str(record.get("id") or hashlib.sha256(str(record["question"]).encode()).hexdigest()[:12])
    row = {"id": name, "dataset": str(record.get("dataset") or domain), "domain": domain, "kind": ""}
    return _row(row, str(record["question"]), answers, parts(record["evidence"]))


def _row(
    row: Record, question: str, answers: list[str], evidence: list[tuple[str, str]]
) -> tuple[Record | None, str]:
    answers = list(dict.fromkeys(a.strip() for a in answers if a and a.strip()))
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
