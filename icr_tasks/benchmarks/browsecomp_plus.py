"""BrowseComp-Plus (Tevatron/browsecomp-plus): hard questions with gold, evidence and hard negative documents.

Nothing of it may stand in plain text where a crawler finds it: files stay encrypted, they are decrypted in
memory, and logs hold hashes. The key is the canary sentence on the data set's card, which the user passes in
ICR_BROWSECOMP_PLUS_CANARY; it is not written here on purpose.

Contexts are padded with a question's own negatives to a nominal length, as HELMET does with its distractors.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .. import storage
from ..metrics import scorers
from . import flat, lines, nominal, sealed
from .base import Item, ItemSet, Prompt, Unit
from .declare import benchmark, grid, whole
from .pinned import Pinned
from .synth.names import rng

EXPECTED = 830
KEY = "ICR_BROWSECOMP_PLUS_CANARY"
SEAL = sealed.Seal(KEY, "BrowseComp-Plus", "Tevatron/browsecomp-plus")
LENGTHS = {f"{n}k": n << 10 for n in (32, 64, 128, 256, 512)} | {"1M": 1 << 20}
_CHARS = 4  # a token, of nominal lengths: no tokenizer is asked
DATA = Pinned(
    "Tevatron/browsecomp-plus",
    "144cff8e35b5eaef7e526346aa60774a9deb941f",
    "MIT (an earlier card: Apache-2.0)",
    {
        "data/test-00000-of-00006.parquet": "4ff9e93054eaee61b8d079a89b7ec4d02f16c9d05fa6e2fef7185b0786427a3a",
        "data/test-00001-of-00006.parquet": "70cc3a6781693bb013c6855f231d15159222dddf826eb19947f6f85fcabccd4e",
        "data/test-00002-of-00006.parquet": "f4fab28dcd293231da1b9da48680a19c7cdcb831df889d0691304de66016d194",
        "data/test-00003-of-00006.parquet": "e738eb7a2e76feebe60632fc279a99773586d75ce5344e205c9c53fc3071c126",
        "data/test-00004-of-00006.parquet": "25535ff3d41be25d8b213b903c478f34c18082af3cbfe0a4a3925989b84c87e4",
        "data/test-00005-of-00006.parquet": "3a87031c5214322344b358db1d5f44d773b4d634ae43c60ce53ad582ccc47646",
    },
    "browsecomp_plus",
    about=2_790_000_000,
)
_LISTS = ("gold_docs", "evidence_docs", "negative_docs")
_FIELDS: lines.Fields = {"query_id": str, "query": str, "answer": str, **dict.fromkeys(_LISTS, list)}


def load(
    dataset: str = "all", length: str | None = None, *, allow_partial: object = None, **_: Any
) -> ItemSet:
    """All questions at a nominal length. Raises IcrError without the key, with another key, or for short data."""
    key = SEAL.key()
    at_hand = sorted(file.name for file in (storage.data_root() / DATA.folder).glob("test-*.parquet"))
    found = [DATA.records(name, _FIELDS, _keep) for name in at_hand or DATA.sha256]
    items = [_item(file, row, key, str(length)) for file in found for row in file.rows]
    return DATA.items(items, found, EXPECTED, allow_partial, name="test-*.parquet")


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    for name in _LISTS:
        for doc in record[name]:
            if not isinstance(doc, dict) or not isinstance(doc.get("text"), str) or doc.get("docid") is None:
                raise ValueError(f"field {name!r} has a document without docid and text")
    if not record["evidence_docs"]:
        raise ValueError("a question without evidence documents")
    return {k: record[k] for k in ("query_id", "query", "answer")}


def _item(found: flat.Records, row: Any, key: str, length: str) -> Item:
    kept = row.kept
    question, answer = SEAL.opened(kept["query"], key), SEAL.opened(kept["answer"], key)
    units = partial(_units, found, row, key, length)
    return Item(
        kept["query_id"], question, (answer,), kept["query_id"], units, keys={"length": length}, sealed=True
    )


def _units(found: flat.Records, row: Any, key: str, length: str) -> list[Unit]:
    """Evidence and as many of the question's negatives as the nominal length holds, in seeded order."""
    record = found.read(row)
    needed = {_id(doc, key): _unit(doc, key, True) for doc in record["evidence_docs"] + record["gold_docs"]}
    negatives = [doc for doc in record["negative_docs"] if _id(doc, key) not in needed]
    # the same order for all lengths: a longer context holds the shorter one
    rng("browsecomp_plus", row.kept["query_id"]).shuffle(negatives)
    others = (_unit(doc, key, False) for doc in negatives)
    return nominal.mixed(nominal.filled(needed.values(), others, LENGTHS[length] * _CHARS))


def _unit(doc: dict[str, Any], key: str, gold: bool) -> Unit:
    return Unit(_id(doc, key), SEAL.opened(doc["text"], key), gold=gold)


def _id(doc: dict[str, Any], key: str) -> str:
    docid = str(doc["docid"])
    return sealed.public(docid if docid.isdigit() else SEAL.opened(docid, key))


@benchmark(
    "browsecomp_plus",
    title="BrowseComp-Plus",
    units="documents",
    marks_gold=True,
    chance=None,
    metrics=scorers.BUNDLES["qa_judged"],
    prompts={
        "documents": Prompt(
            "documents",
            user="Answer the question from the documents below.\n\n{context}\n\nQuestion: {question}\n\nReason briefly, "
            "then end with a line in this form:\nThe answer is: <your answer>",
            no_context="Question: {question}\n\nReason briefly, then end with a line in this form:\nThe answer is: "
            "<your answer>",
            unit="[DOC {n}]\n{text}",
            cut="documents",
            max_gen_toks=4096,
            source="ours: the data set prescribes an agent, not a prompt",
        )
    },
    **DATA.facts,
    n=EXPECTED,
    overflow="skip",
    metric_definition="share of answers that a judge finds to say what the official answer says",
    cluster="question",
    scorer="qa_judged",
)
class BrowseCompPlus:
    """One data set at six nominal lengths."""

    tasks = grid(length=LENGTHS)
    groups = [whole("icr_browsecomp_plus", "BrowseComp-Plus", tasks, "judge_equiv")]
    load = staticmethod(load)
    files = DATA.all  # the encrypted parquet files
