"""Loong, financial reports in English: 295 of the official 1,600 records, and their documents.

Official files are called `2024-<company>-j.txt` (10-Q) or `-n.txt` (10-K); levels 1-3 name a company, level 4
whole stems. The official loader takes the first match of a glob in directory order, which is no order:
`Files.find` says what is taken here. Documents are shuffled per item where `shuffle_doc` says so, as the
official loader does, but by a seed of the item. Items that share a filing, directly or through others, share
a cluster.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import IcrError
from ..metrics import scorers
from ..storage import allow_partial as partial_allowed
from ..storage import data_root, fingerprint, require, short
from . import archives, lines
from .base import Item, ItemSet, Prompt, Unit
from .declare import Task, benchmark
from .fetch import Remote

EXPECTED = 295
REVISION = "e05a1fd3ebd89d16dcca4fbeb8e761c82609f819"
QUESTIONS_SHA256 = "cd640d3ca0e41d3638153506e3caee109850b30de0a4e829862232a2b6302da8"
# The documents stood in the repository until they were replaced by a link to an archive without a hash: the last
# commit that has them, and `archives.manifest` of the 574 financial ones.
DOCUMENTS_COMMIT = "494f5fb8362440e03323572c2b18e762e7f2b1da"
DOCUMENTS = f"https://codeload.github.com/MozerWang/Loong/tar.gz/{DOCUMENTS_COMMIT}"
DOCUMENTS_MANIFEST = "7181fc8261e0c15277f65eaf13187aa0e876d58ef51c4b5134db62caab34edc2"
_REPOSITORY = "https://raw.githubusercontent.com/MozerWang/Loong"
_ALL: lines.Fields = {"type": str, "language": str}
_FIELDS: lines.Fields = {
    "id": str,
    "level": int,
    "set": int,
    "question": str,
    "instruction": str,
    "doc": list,
    "answer": (str, list, dict),
}


def load(
    dataset: str = "all",
    length: str | None = None,
    *,
    allow_partial: object = None,
    questions_file: str | None = None,
    **_: Any,
) -> ItemSet:
    """All English financial items. `questions_file` names another file of the same format beside loong.jsonl.

    Raises IcrError for missing questions, fields or documents, and for another count than 295 unless
    `allow_partial`.
    """
    folder = data_root() / "loong"
    path = require(folder / (questions_file or "loong.jsonl"), "loong")
    rows = [
        r
        for r in lines.index(path, dict, version="loong-1", fields=_ALL)
        if r.kept["type"] == "financial" and r.kept["language"] == "en"
    ]
    for row in rows:
        lines.check(path, row.line, row.kept, _FIELDS)
        if not row.kept["doc"] or not all(isinstance(name, str) for name in row.kept["doc"]):
            raise IcrError(
                f"{path}:{row.line}: field 'doc' is not a list of document names; fetch the file again"
            )
    if len(rows) != EXPECTED and not partial_allowed(allow_partial):
        raise short(path, "English financial records", len(rows), EXPECTED)
    files = Files(folder / "doc" / "financial")
    clusters = components([r.kept["doc"] for r in rows])
    items = [_item(files, f"{path}:{r.line}", r.kept, clusters[n]) for n, r in enumerate(rows)]
    return ItemSet(
        items, EXPECTED, path.name, f"sha256:{fingerprint(path)[:16]}", len(rows) == EXPECTED, _notes(items)
    )


class Files:
    """The documents of one folder and the rule that finds the one a record means. IcrError for a missing
    folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise IcrError(f"no documents at {folder}\n  fetch them:  icr data fetch loong")
        self.folder = folder
        self.stems = sorted(p.stem for p in folder.glob("*.txt") if not p.name.startswith("."))
        self._by_company: dict[str, list[str]] = {}
        for stem in self.stems:
            year, _, rest = stem.partition("-")
            if year == "2024" and rest:
                self._by_company.setdefault(rest.split("-")[0], []).append(stem)

    def find(self, level: int, name: str) -> dict[str, Any]:
        """{name, file, by, matches} of the document `name` of a record of that level; `file` is None if there
        is none.

        Level 4: the file with that stem. Levels 1-3: the files of 2024 whose second field between hyphens is
        the name (by "company"), or with the stem `2024-<name>` (by "stem"). Where no file has the name, the
        official pattern: all files that contain it (by "part"). Of several `matches` the first in byte order,
        so "-j" before "-n".
        """
        wanted = name if level == 4 else f"2024-{name}"
        found, by = ([], "company") if level == 4 else (self._by_company.get(name, []), "company")
        if not found:
            found, by = [s for s in self.stems if s == wanted], "stem"
        if not found:
            found, by = [s for s in self.stems if wanted in s], "part"
        return {"name": name, "file": f"{found[0]}.txt" if found else None, "by": by, "matches": len(found)}


def _item(files: Files, where: str, record: dict[str, Any], cluster: str) -> Item:
    level = record["level"]
    found = [files.find(level, name) for name in record["doc"]]
    for document in found:
        if document["file"] is None:
            wanted = document["name"] if level == 4 else f"2024-{document['name']}"
            raise IcrError(
                f"{where}: Loong item {record['id']}: no document '{wanted}.txt' or '{wanted}-*.txt' in "
                f"{files.folder}; "
                "icr data fetch loong"
            )
    if record.get("shuffle_doc", True):  # as the official loader: shuffled unless the record forbids it
        random.Random(f"loong:{record['id']}").shuffle(found)
    answer = record["answer"]
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return Item(
        id=record["id"],
        question=record["question"],
        answers=(text,),
        cluster=cluster,
        units=partial(_units, tuple(files.folder / document["file"] for document in found)),
        keys={"level": level, "set": record["set"], "n_docs": len(found)},
        fields={"instruction": record["instruction"], "gold": answer, "documents": found},
    )


def _units(paths: tuple[Path, ...]) -> list[Unit]:
    """Documents in the order shown. The stem tells filings apart; the official template prints its last
    field."""
    return [
        Unit(path.stem, path.read_text(encoding="utf-8"), path.stem, official_title=path.stem.split("-")[-1])
        for path in paths
    ]


def _notes(items: Sequence[Item]) -> tuple[str, ...]:
    """How many references needed more of the rule than a file of their own."""
    documents = [d for item in items for d in item.fields["documents"]]
    parts = sum(d["by"] == "part" for d in documents)
    several = sum(d["by"] != "part" and d["matches"] > 1 for d in documents)
    notes = []
    if several:
        notes.append(
            f"{several} of {len(documents)} documents have several files: the first in byte order is taken"
        )
    if parts:
        notes.append(
            f"{parts} of {len(documents)} documents have no file of their name: the first that contains it "
            "is taken"
        )
    return tuple(notes)


def components(groups: list[list[str]]) -> list[str]:
    """A label for each group such that groups sharing a name, directly or through others, have the same
    label."""
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
    """Unpack the financial documents into `folder`/doc/financial; returns how many. IcrError for an archive
    that is broken or holds other documents than the official ones."""
    return archives.unpack(
        archive, folder / "doc" / "financial", archives.flat(_financial), DOCUMENTS_MANIFEST
    )


def _financial(path: PurePosixPath) -> bool:
    return "financial" in path.parts and path.suffix == ".txt" and not path.name.startswith(".")


# ---- prompts -------------------------------------------------------------------------------------
# Loong, English financial reports: the paper's Table 7 and Loong's own template.

PROMPTS: dict[str, Prompt] = {
    "paper": Prompt(
        "paper",
        user="{context}\n\n{instruction}\n\n{question}.",
        system="You are an expert in answering questions about financial reports.",
        no_context="{instruction}\n\n{question}.",
        unit="《{title}》\n{text}\n",
        joiner="\n",
        cut="documents",
        source="arXiv 2601.18527, Table 7",
    ),
    "official": Prompt(
        "official",
        user="{context}\n\n{instruction}\n\n{question}",
        no_context="{instruction}\n\n{question}",
        unit="《{title}》\n{text}\n\n",
        joiner="",
        cut="documents",
        official_titles=True,
        source="MozerWang/Loong prompt_template",
    ),
}


@benchmark(
    "loong_fin",
    title="Loong-Fin",
    units="documents",
    marks_gold=False,
    chance=None,
    suite="1",
    aliases=("loong",),
    metrics=scorers.BUNDLES["loong"],
    prompts=PROMPTS,
    source="MozerWang/Loong, financial, English",
    revision=REVISION,
    license="Apache-2.0; filings are public record",
    n=EXPECTED,
    metric="judge",
    metric_definition="judge rating 1-100 / 100, mean over parsed verdicts; judge_zero counts unparsed as 0",
    metric_version=1,
    cluster="filings",
    scorer="loong",
    typical_tokens=110_000,
    breakdown=["level", "set"],
)
class LoongFin:
    """The questions, and one archive of documents which is unpacked."""

    tasks = [Task(version="2-A")]
    load = staticmethod(load)

    @staticmethod
    def files(dataset: str, length: str | None) -> list[Remote]:
        """Questions and documents."""
        return [
            Remote(
                "loong/loong.jsonl", f"{_REPOSITORY}/{REVISION}/data/loong.jsonl", sha256=QUESTIONS_SHA256
            ),
            Remote("loong/documents.tar.gz", DOCUMENTS, unpack=unpack),
        ]
