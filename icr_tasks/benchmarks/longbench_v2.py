"""LongBench-v2: 503 four-way questions, the official data.json (one array of flat string records)."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ..errors import IcrError
from ..metrics import scorers
from ..storage import allow_partial as partial_allowed
from ..storage import cache_root, data_root, fingerprint, require, short, write_atomic
from . import lines
from .base import Item, ItemSet, Prompt, Unit
from .declare import Task, benchmark
from .fetch import Remote

EXPECTED = 503
REVISION = "2b48e494f2c7a2f0af81aae178e05c7e1dde0fe9"
SHA256 = "15d61c22d92c96900b3c4948b6aeea218d3214b676a65df48e7b8555604c7fe2"
_FIELDS = (
    "_id",
    "domain",
    "sub_domain",
    "difficulty",
    "length",
    "question",
    "choice_A",
    "choice_B",
    "choice_C",
    "choice_D",
    "answer",
    "context",
)


def load(
    dataset: str = "all", length: str | None = None, *, allow_partial: object = None, **_: Any
) -> ItemSet:
    """All items. Raises IcrError for a missing, corrupt or short file."""
    path = require(data_root() / "longbench_v2" / "data.json", "longbench_v2")
    sha = fingerprint(path)
    flat = _lines_copy(path, sha)
    rows = lines.index(flat, _keep, version="longbench-1")
    if len(rows) != EXPECTED and not partial_allowed(allow_partial):
        raise short(path, "records", len(rows), EXPECTED)
    seen = Counter[str]()
    items = []
    for row in rows:
        seen[row.kept["_id"]] += 1
        items.append(_item(flat, row, seen[row.kept["_id"]]))
    return ItemSet(items, EXPECTED, path.name, f"sha256:{sha[:16]}", sha == SHA256)


def _lines_copy(path: Path, sha: str) -> Path:
    """The array as one record a line in the cache, so that a context can be read alone; made once per
    file."""
    flat = cache_root() / "longbench_v2" / f"{sha[:16]}.jsonl"
    if not flat.is_file():
        try:
            records = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise IcrError(f"{path}: not valid JSON ({error}); fetch the file again") from error
        if not isinstance(records, list):
            raise IcrError(f"{path}: expected one list of records; fetch the file again")
        for number, record in enumerate(records, 1):
            if not isinstance(record, dict):
                raise IcrError(f"{path}: record {number} is not an object; fetch the file again")
            missing = [f for f in _FIELDS if not isinstance(record.get(f), str)]
            if missing:
                raise IcrError(
                    f"{path}: record {number} has no text in {', '.join(missing)}; fetch the file again"
                )
        write_atomic(flat, b"".join(orjson.dumps(r) + b"\n" for r in records))
    return flat


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    document = hashlib.sha256(record["context"].encode()).hexdigest()[:12]
    return {**{f: record[f] for f in _FIELDS if f != "context"}, "document": document}


def _item(path: Path, row: lines.Row, occurrence: int) -> Item:
    kept = row.kept
    if kept["answer"] not in "ABCD" or len(kept["answer"]) != 1:
        raise IcrError(
            f"LongBench-v2 record {row.line} ({kept['_id']}): answer {kept['answer']!r} is not A, B, C or D"
        )
    return Item(
        id=kept["_id"] if occurrence == 1 else f"{kept['_id']}-{occurrence}",
        question=kept["question"].strip(),
        answers=(kept["answer"],),
        cluster=kept["document"],
        units=partial(_units, path, row),
        options=tuple(kept[f"choice_{c}"].strip() for c in "ABCD"),
        keys={k: kept[k] for k in ("difficulty", "length", "domain", "sub_domain")},
    )


def _units(path: Path, row: lines.Row) -> list[Unit]:
    return [Unit(row.kept["document"], lines.read(path, row)["context"].strip())]


# ---- prompts -------------------------------------------------------------------------------------
# LongBench-v2: the paper's Table 7 (its user text is the official 0shot.txt) and the benchmark's own.

PAPER, OFFICIAL = "arXiv 2601.18527, Table 7", "THUDM/LongBench prompts/0shot.txt"
_SYSTEM = "You are an expert in multiple-choice question answering."
_TEXT = "Please read the following text and answer the {q} below.\n\n<text>\n{context}\n</text>\n\n"
_QUESTION = (
    "What is the correct answer to this question: {question}\nChoices:\n"
    "(A) {choice_a}\n(B) {choice_b}\n(C) {choice_c}\n(D) {choice_d}\n\n"
)
_ANSWER = 'Format your response as follows: "The correct answer is (insert answer here)".'
_NONE = (
    _QUESTION + "What is the single, most likely answer choice? Format your response as follows: "
    "'The correct answer is (insert answer here)'."
)
_ZERO = _TEXT.replace("{q}", "question") + _QUESTION + _ANSWER
# The official chain-of-thought run is two calls; one generation does both here, with the official answer
# format.
_COT = _TEXT.replace("{q}", "questions") + _QUESTION + _ANSWER + "\n\nLet’s think step by step:"


def _prompt(
    name: str, user: str, system: str | None, tokens: int, source: str, no_context: str = _NONE
) -> Prompt:
    return Prompt(
        name,
        user,
        system,
        no_context=no_context,
        unit="{text}",
        joiner="\n",
        cut="middle",
        max_gen_toks=tokens,
        source=source,
    )


PROMPTS: dict[str, Prompt] = {
    "paper": _prompt("paper", _ZERO, _SYSTEM, 2048, PAPER),
    "official": _prompt("official", _ZERO, None, 128, OFFICIAL, _NONE.replace("'", '"')),
    "cot": _prompt("cot", _COT, None, 1024, "THUDM/LongBench prompts/0shot_cot.txt, one call"),
}


@benchmark(
    "longbench_v2",
    title="LongBench-v2",
    units="documents",
    marks_gold=False,
    chance=0.25,
    suite="1",
    metrics=scorers.BUNDLES["longbench"],
    prompts=PROMPTS,
    source="THUDM/LongBench-v2",
    revision=REVISION,
    license="Apache-2.0",
    n=EXPECTED,
    metric="acc_choice",
    metric_official="acc",
    metric_definition="the option that the answer names, by letter or text; acc is the official extraction "
    "(the headline "
    "under prompt official), acc_xfinder the paper's",
    metric_version=2,
    cluster="document",
    scorer="longbench",
    typical_tokens=250_000,
    breakdown=["difficulty", "length", "domain"],
)
class LongBenchV2:
    """One file; the chain-of-thought prompt is a task of its own, as in the official table."""

    tasks = [
        Task(version="2-A"),
        Task(name="icr_longbench_v2_cot", facts={"prompt": "cot"}, version="2-A"),
    ]
    load = staticmethod(load)

    @staticmethod
    def files(dataset: str, length: str | None) -> list[Remote]:
        """The one file."""
        return [
            Remote(
                "longbench_v2/data.json",
                f"datasets/THUDM/LongBench-v2/resolve/{REVISION}/data.json",
                sha256=SHA256,
            )
        ]
