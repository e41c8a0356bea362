"""InfiniteBench En.MC (229), En.QA (351), En.Sum (103): the official longbook_*_eng.jsonl files.

Fields: id, context, input, answer (list), options (list; only En.MC has any). Contexts stay on disk; questions of one book share a cluster.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import IcrError, unknown
from . import lines
from .item import Item, ItemSet, Unit
from .roots import allow_partial as partial_allowed
from .roots import data_root, fingerprint, require, short

FILES = {
    "mc": ("longbook_choice_eng.jsonl", 229),
    "qa": ("longbook_qa_eng.jsonl", 351),
    "sum": ("longbook_sum_eng.jsonl", 103),
}


_FIELDS: lines.Fields = {"id": (int, str), "context": str, "answer": (str, list)}
_ASKED: lines.Fields = {**_FIELDS, "input": str}  # a summary has no question


def load(dataset: str, length: str | None = None, *, allow_partial: object = None, **_: Any) -> ItemSet:
    """Items of one split. Raises IcrError for names, missing, corrupt or short files, missing fields, and options
    without the answer."""
    if dataset not in FILES:
        raise unknown("InfiniteBench dataset", dataset, FILES)
    name, expected = FILES[dataset]
    path = require(data_root() / "infinitebench" / name, f"infbench --datasets {dataset}")
    rows = lines.index(path, _keep, version="infbench-2", fields=_FIELDS if dataset == "sum" else _ASKED)
    if len(rows) != expected and not partial_allowed(allow_partial):
        raise short(path, "records", len(rows), expected)
    items = [_item(path, dataset, row) for row in rows]
    return ItemSet(items, expected, path.name, f"sha256:{fingerprint(path)[:16]}", len(rows) == expected)


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    book = hashlib.sha256(record["context"].encode()).hexdigest()[:12]
    answers = [record["answer"]] if isinstance(record["answer"], str) else record["answer"]
    if not answers or not all(isinstance(a, str) for a in answers):
        raise ValueError("field 'answer' is not a list of texts")
    return {
        **{k: record[k] for k in ("id", "options") if k in record},
        "input": record.get("input") or "",
        "answer": answers,
        "book": book,
        "chars": len(record["context"]),
    }


def _item(path: Path, dataset: str, row: lines.Row) -> Item:
    kept = row.kept
    answers = tuple(kept["answer"])
    if dataset == "mc":
        lines.check(path, row.line, kept, {"options": list})
        if len(kept["options"]) != 4 or answers[0] not in kept["options"]:
            raise IcrError(f"{path}:{row.line}: the answer {answers[0]!r} is not among four options")
    return Item(
        id=f"{dataset}-{kept['id']}",
        question=kept["input"],
        answers=answers,
        cluster=kept["book"],
        units=partial(_units, path, row),
        options=tuple(kept.get("options") or ()),
        keys={"book": kept["book"], "chars": kept["chars"]},
    )


def _units(path: Path, row: lines.Row) -> list[Unit]:
    return [Unit(row.kept["book"], lines.read(path, row)["context"])]
