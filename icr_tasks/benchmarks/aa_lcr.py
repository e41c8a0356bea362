"""AA-LCR (ArtificialAnalysis/AA-LCR): 100 questions over sets of about eight long documents, graded by a judge.

The documents belong to their owners: they are fetched by the user and never shipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import IcrError
from ..metrics import scorers
from . import archives
from .archives import repaired
from .base import Item, ItemSet, Prompt, Unit
from .declare import benchmark, grid
from .fetch import Remote
from .pinned import Pinned

EXPECTED = 100
_CSV = "AA-LCR_Dataset.csv"
DATA = Pinned(
    "ArtificialAnalysis/AA-LCR",
    # Version 1.1 of 2026-09-04: 16 answers corrected, so scores do not compare with those of 1.0 (revision bdae010b).
    "9a77ef56b717057ade24ceab4d273712a0b4f19e",
    "Apache-2.0; documents belong to their owners",
    {
        _CSV: "aea5198982436fa774f616964bbeb34716de9e94368a123275b9355765c9b73b",
        "extracted_text/AA-LCR_extracted-text.zip": "5e839249826f6b9bd5324f0d139089c9dc481ccb3f212a6dfad00c51045d9d8a",
    },
    "aa_lcr",
    about=12_400_000,
)
_FIELDS = dict.fromkeys(
    ("document_category", "document_set_id", "question_id", "question", "answer", "data_source_filenames"),
    str,
)


def load(
    dataset: str = "all", length: str | None = None, *, allow_partial: object = None, **_: Any
) -> ItemSet:
    """All questions. Raises IcrError for a missing or short table; a document that is missing says so when
    its prompt is built."""
    found = DATA.records(_CSV, _FIELDS, _keep)
    items = [_item(found.source.parent / "lcr", row.kept) for row in found.rows]
    return DATA.items(items, [found], EXPECTED, allow_partial)


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    files = [name.strip() for name in record["data_source_filenames"].split(";") if name.strip()]
    if not files:
        raise ValueError(f"question {record['question_id']} names no document")
    return {**{name: record[name] for name in _FIELDS}, "files": files, "tokens": record.get("input_tokens")}


def _item(root: Path, kept: dict[str, Any]) -> Item:
    folder = root / kept["document_category"] / kept["document_set_id"]
    answer = kept["answer"].replace("\\n", "\n")  # the table writes line breaks as two characters
    return Item(
        kept["question_id"],
        kept["question"],
        (answer,),
        kept["document_set_id"],
        partial(_units, folder, tuple(kept["files"])),
        keys={"category": kept["document_category"], "official_tokens": int(kept["tokens"] or 0)},
        fields={"documents": kept["files"]},
    )


def _units(folder: Path, names: Sequence[str]) -> list[Unit]:
    """The documents in the order of the table, which is the order of the official prompt."""
    at_hand = {repaired(path.name): path for path in folder.iterdir()} if folder.is_dir() else {}
    missing = [name for name in names if repaired(name) not in at_hand]
    if missing:
        raise IcrError(f"{folder} has no {', '.join(missing)}; fetch it:  icr data fetch aa_lcr")
    return [Unit(name, at_hand[repaired(name)].read_text(encoding="utf-8"), name) for name in names]


def unpack(archive: Path, folder: Path) -> int:
    """Unpack the documents beside the table, under their right names; returns how many. Raises IcrError as
    `archives.unpack` does."""
    return archives.unpack(archive, folder / "lcr", _document, None)


def _document(path: PurePosixPath) -> PurePosixPath | None:
    parts = PurePosixPath(repaired(str(path))).parts
    if path.suffix != ".txt" or "lcr" not in parts or "__MACOSX" in parts:
        return None
    return PurePosixPath(*parts[parts.index("lcr") + 1 :])


@benchmark(
    "aa_lcr",
    title="AA-LCR",
    units="documents",
    marks_gold=False,
    chance=None,
    metrics=scorers.BUNDLES["qa_judged"],
    prompts={
        "official": Prompt(
            "official",
            user="BEGIN INPUT DOCUMENTS\n\n{context}\n\nEND INPUT DOCUMENTS\n\nAnswer the following question using "
            "the input documents provided above.\n\nSTART QUESTION\n\n{question}\n\nEND QUESTION\n",
            no_context="START QUESTION\n\n{question}\n\nEND QUESTION\n",
            unit="BEGIN DOCUMENT {n}:\n{text}\nEND DOCUMENT {n}",
            cut="documents",
            max_gen_toks=4096,
            source="ArtificialAnalysis/AA-LCR card",
        )
    },
    **DATA.facts,
    n=EXPECTED,
    overflow="skip",
    metric_definition="share of answers that a judge finds to say what the official answer says",
    cluster="document set",
    scorer="qa_judged",
    typical_tokens=100_000,
    breakdown=["category"],
)
class AaLcr:
    """The table of questions, and one archive of documents which is unpacked."""

    tasks = grid(version="2-A")
    load = staticmethod(load)

    @staticmethod
    def files(dataset: str, length: str | None) -> list[Remote]:
        """Questions and documents."""
        return DATA.remotes(unpack=unpack)
