"""Loong, financial reports in English: 295 of the official 1,600 records, and their documents.

Documents are found by exact file stem (`2024-{name}.txt` for levels 1-3, `{name}.txt` for level 4): the official
loader's glob matches other companies too. Items that share a filing, directly or through others, share a cluster.
"""

from __future__ import annotations

import json
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import IcrError
from . import lines
from .item import Item, ItemSet, Unit
from .roots import allow_partial as partial_allowed
from .roots import data_root, fingerprint, require, short

EXPECTED = 295


def load(
    dataset: str = "all",
    length: str | None = None,
    *,
    allow_partial: object = None,
    questions_file: str | None = None,
    **_: Any,
) -> ItemSet:
    """All English financial items. `questions_file` names another file of the same format beside loong.jsonl.

    Raises IcrError for missing questions or documents, and for another count than 295 unless `allow_partial`.
    """
    folder = data_root() / "loong"
    path = require(folder / (questions_file or "loong.jsonl"), "loong")
    rows = [
        r
        for r in lines.index(path, dict, version="loong-1")
        if r.kept["type"] == "financial" and r.kept["language"] == "en"
    ]
    if len(rows) != EXPECTED and not partial_allowed(allow_partial):
        raise short(path, "English financial records", len(rows), EXPECTED)
    documents = folder / "doc" / "financial"
    if not documents.is_dir():
        raise IcrError(f"no documents at {documents}\n  fetch them:  icr data fetch loong")
    clusters = components([r.kept["doc"] for r in rows])
    items = [_item(documents, r.kept, clusters[n]) for n, r in enumerate(rows)]
    return ItemSet(items, EXPECTED, path.name, f"sha256:{fingerprint(path)[:16]}", len(rows) == EXPECTED)


def stem(record: dict[str, Any], name: str) -> str:
    """File stem of a document as the official loader's patterns mean it."""
    return name if int(record["level"]) == 4 else f"2024-{name}"


def _item(folder: Path, record: dict[str, Any], cluster: str) -> Item:
    paths = [folder / f"{stem(record, name)}.txt" for name in record["doc"]]
    missing = [p.name for p in paths if not p.is_file()]
    if missing:
        raise IcrError(f"Loong item {record['id']}: no document {missing[0]!r} in {folder}; icr data fetch loong")
    answer = record["answer"]
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return Item(
        id=record["id"],
        question=record["question"],
        answers=(text,),
        cluster=cluster,
        units=partial(_units, tuple(paths), tuple(record["doc"])),
        keys={"level": record["level"], "set": record["set"], "n_docs": len(paths)},
        fields={"instruction": record["instruction"], "gold": answer},
    )


def _units(paths: tuple[Path, ...], names: tuple[str, ...]) -> list[Unit]:
    """Documents in the record's order; the file name is the title the official prompt shows."""
    return [Unit(path.stem, path.read_text(encoding="utf-8"), name) for path, name in zip(paths, names, strict=True)]


def components(groups: list[list[str]]) -> list[str]:
    """A label for each group such that groups sharing a name, directly or through others, have the same label."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for names in groups:
        for name in names[1:]:
            a, b = sorted((root(names[0]), root(name)))
            parent[b] = a
    return [f"filings:{root(names[0])}" for names in groups]


def unpack(archive: Path, folder: Path) -> int:
    """Unpack the financial documents of doc.zip into `folder`; returns how many. Entries that leave it are refused."""
    count = 0
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            parts = PurePosixPath(info.filename).parts
            if ".." in parts or PurePosixPath(info.filename).is_absolute():
                raise IcrError(f"{archive}: entry {info.filename!r} would leave {folder}; refused")
            if "financial" not in parts or not info.filename.endswith(".txt"):
                continue
            target = folder / "doc" / "financial" / parts[-1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(zipped.read(info))
            count += 1
    return count
