"""HELMET-RAG: the official KILT files of princeton-nlp/HELMET (data.py, scripts/generate_configs.py at
4526dfb).

Per file 100 questions are drawn with seed 42 and every row of them is kept (one row per gold position):
600 rows for NQ, TriviaQA and PopQA, 300 for HotpotQA, at each length 4k..128k.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ..errors import IcrError, unknown
from ..metrics import scorers
from ..storage import allow_partial as partial_allowed
from ..storage import data_root, fingerprint, require, short
from . import lines, paper_prompts
from .base import Item, ItemSet, Prompt, Unit, fill
from .declare import Group, Task, benchmark
from .fetch import Remote

REVISION = "dddb209d03e38f1f0faf76d6d05ef4ccf96240ee"
PASSAGES = {"4k": 20, "8k": 50, "16k": 105, "32k": 220, "64k": 440, "128k": 1000}
QUESTIONS, SEED = 100, 42
_FIELDS: lines.Fields = {"question": str, "answers": (str, list), "ctxs": list}
SHA256 = {  # of the official files whose hash is published
    ("nq", "128k"): "d39073c4915041e4319d313aa558d9a6cee1571dabdf84a53155abb9fedd342a",
    ("hotpotqa", "128k"): "10cfc8abf743a1b9683b6244db7978fbe0af307d88ee0e5f0a8cec2efad92a7d",
}


@dataclass(frozen=True)
class _Source:
    test: str
    demos: str
    variants: int
    popularity: float | None = None  # keep rows with log10(s_pop) below it, before sampling

    @property
    def rows(self) -> int:
        return QUESTIONS * self.variants


SOURCES = {
    "nq": _Source("nq-dev-multikilt_1000_k{k}_dep6.jsonl", "nq-train-multikilt_1000_k3_dep6.jsonl", 6),
    "triviaqa": _Source(
        "triviaqa-dev-multikilt_1000_k{k}_dep6.jsonl", "triviaqa-train-multikilt_1000_k3_dep6.jsonl", 6
    ),
    "hotpotqa": _Source(
        "hotpotqa-dev-multikilt_1000_k{k}_dep3.jsonl", "hotpotqa-train-multikilt_1000_k3_dep3.jsonl", 3
    ),
    "popqa": _Source("popqa_test_1000_k{k}_dep6.jsonl", "popqa_test_1000_k3_dep6.jsonl", 6, 3.0),
}


def folder() -> Path:
    """Folder of the KILT files below the data root (`helmet/data/kilt`, as the archive unpacks)."""
    return data_root() / "helmet" / "data" / "kilt"


def load(dataset: str, length: str | None = None, *, allow_partial: object = None, **_: Any) -> ItemSet:
    """Items of one dataset at one length. Raises IcrError for names, missing, corrupt, short or mismatched
    files."""
    if dataset not in SOURCES:
        raise unknown("HELMET-RAG dataset", dataset, SOURCES)
    if length not in PASSAGES:
        raise unknown("HELMET-RAG length", str(length), PASSAGES)
    source, k = SOURCES[dataset], PASSAGES[length]
    path = require(folder() / source.test.format(k=k), f"helmet --datasets {dataset} --lengths {length}")
    rows = lines.index(path, _keep, version="helmet-2", fields=_FIELDS)
    for row in rows:
        if row.kept["k"] != k:
            raise IcrError(
                f"{path}:{row.line}: {row.kept['k']} passages, a {length} file has {k} in every row"
            )
        if row.kept["has_id"] != rows[0].kept["has_id"]:
            raise IcrError(
                f"{path}:{row.line}: field 'id' is in some rows and not in others; fetch the file again"
            )
    if source.popularity is not None:
        rows = [r for r in rows if _popularity(path, r.line, r.kept) < source.popularity]
    chosen = sample(sorted({r.kept["key"] for r in rows}))
    rows = [r for r in rows if r.kept["key"] in chosen]
    official = len(rows) == source.rows
    if not official and not partial_allowed(allow_partial):
        raise short(path, f"rows of {len(chosen)} sampled questions", len(rows), source.rows)
    sha = fingerprint(path)
    official = official and SHA256.get((dataset, length), sha) == sha
    return ItemSet(
        _in_turn(_items(path, dataset, length, rows)), source.rows, path.name, f"sha256:{sha[:16]}", official
    )


def sample(keys: Sequence[Any]) -> set[Any]:
    """HELMET's draw: `random.seed(42); random.sample(sorted keys, 100)`."""
    return set(random.Random(SEED).sample(keys, min(QUESTIONS, len(keys))))


def _popularity(path: Path, line: int, record: dict[str, Any]) -> float:
    """log10 of the page views. IcrError where HELMET's filter could not take it."""
    lines.check(path, line, record, {"s_pop": (int, float)})
    if record["s_pop"] <= 0:
        raise IcrError(
            f"{path}:{line}: s_pop is {record['s_pop']}, its logarithm needs more than 0; fetch the file "
            "again"
        )
    return math.log10(record["s_pop"])


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    if not record["question"].strip() or not _flat(record["answers"]):
        raise ValueError("the question or the list 'answers' is empty")
    if not all(isinstance(c, dict) and isinstance(c.get("text"), str) for c in record["ctxs"]):
        raise ValueError("a passage of 'ctxs' has no 'text'")
    kept: dict[str, Any] = {
        name: record[name] for name in ("question", "answers", "depth", "s_pop") if name in record
    }
    gold = _gold(record)
    first = next((i for i, g in enumerate(gold) if g), None)
    return {
        **kept,
        "key": record["question"] if record.get("id") is None else record["id"],
        "has_id": record.get("id") is not None,
        "k": len(record["ctxs"]),
        "gold": first,
        "n_gold": sum(gold),
    }


def _identity(passage: dict[str, Any]) -> Any:
    for name in ("psg_id", "passage_id", "id"):
        if passage.get(name) is not None:
            return str(passage[name])
    return passage.get("text")


def _gold(record: dict[str, Any]) -> list[bool]:
    """Gold flags by passage id; by text where ids are of different kinds in the two lists."""
    positive = record.get("positive_ctxs") or []
    ids, texts = {_identity(p) for p in positive}, {p.get("text") for p in positive}
    return [_identity(c) in ids or c.get("text") in texts for c in record["ctxs"]]


def _items(path: Path, dataset: str, length: str, rows: list[lines.Row]) -> list[Item]:
    items, seen = [], dict[Any, int]()
    for row in rows:
        kept = row.kept
        variant = seen[kept["key"]] = seen.get(kept["key"], -1) + 1
        cluster = hashlib.sha256(kept["question"].encode()).hexdigest()[:12]
        position = None if kept["gold"] is None else round(kept["gold"] / max(kept["k"] - 1, 1), 3)
        keys = {
            "length": length,
            "depth": position if kept.get("depth") is None else kept["depth"],
            "gold_position": position,
        }
        items.append(
            Item(
                id=f"{cluster}-{variant}",
                question=kept["question"],
                answers=tuple(_flat(kept["answers"])),
                cluster=cluster,
                units=partial(_units, path, row),
                keys={**keys, "n_gold": kept["n_gold"]},
                fields={"dataset": dataset, "key": str(kept["key"])},
            )
        )
    return items


def _in_turn(items: list[Item]) -> list[Item]:
    """Every question once, the first at its first depth, the second at its second, and so on, then every question once
    more: the first N items, which `--limit N` asks, are of as many questions as there can be. (A file has the depths of a
    question together, and no two of them share a document.)"""
    depths: dict[str, list[Item]] = {}
    for item in items:
        depths.setdefault(item.fields["key"], []).append(item)
    asked = list(depths.values())
    return [
        same[(at + turn) % len(same)]
        for turn in range(max(map(len, asked), default=0))
        for at, same in enumerate(asked)
        if turn < len(same)
    ]


def _flat(answers: Any) -> list[str]:
    if isinstance(answers, str):
        return [answers]
    return [text for answer in answers for text in _flat(answer)]


def _units(path: Path, row: lines.Row) -> list[Unit]:
    record = lines.read(path, row)
    flags = _gold(record)
    return [
        Unit(str(_identity(c))[:64], c["text"], c.get("title") or "", gold=g, relevance=c.get("score"))
        for c, g in zip(record["ctxs"], flags, strict=True)
    ]


@lru_cache(maxsize=4)
def _demo_rows(dataset: str) -> tuple[dict[str, Any], ...]:
    source = SOURCES[dataset]
    path = require(folder() / source.demos, f"helmet --datasets {dataset} --demos")
    records: list[dict[str, Any]] = []
    for line, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        if not raw.strip():
            continue
        record = lines.parse(path, line, raw)
        lines.check(path, line, record, _FIELDS)
        if records and (record.get("id") is None) != (records[0].get("id") is None):
            raise IcrError(
                f"{path}:{line}: field 'id' is in some rows and not in others; fetch the file again"
            )
        if not _flat(record["answers"]):
            raise IcrError(f"{path}:{line}: the list 'answers' is empty; fetch the file again")
        for passage in record["ctxs"]:
            lines.check(path, line, passage if isinstance(passage, dict) else {}, {"title": str, "text": str})
        if source.popularity is None or _popularity(path, line, record) < source.popularity:
            records.append(record)
    return tuple(records)


def demos(dataset: str, key: str, shots: int = 2) -> list[dict[str, str]]:
    """The official demonstrations of a row: {documents, question, answer}, the same for all depths of a
    question.

    data.py: shuffle with seed sha256(key) mod 2^31 (datasets' shuffle is numpy's default_rng permutation),
    drop repeated questions, take the first two; PopQA first removes the row's own question.
    """
    import numpy as np

    records = list(_demo_rows(dataset))
    name = "id" if records and records[0].get("id") is not None else "question"
    if dataset == "popqa":
        records = [r for r in records if str(r[name]) != key]
    seed = int(hashlib.sha256(key.encode("utf-8")).hexdigest(), 16) % 2**31
    picked: dict[Any, dict[str, Any]] = {}
    for i in np.random.default_rng(seed).permutation(len(records)):
        picked.setdefault(records[i][name], records[i])
        if len(picked) == shots:
            break
    shown = "Document (Title: {title}): {text}"
    return [
        {
            "documents": "\n\n".join(shown.format(title=c["title"], text=c["text"]) for c in r["ctxs"]),
            "question": r["question"],
            "answer": _flat(r["answers"])[0],
        }
        for r in picked.values()
    ]


_OFFICIAL = (
    "Use the given documents to write a concise and short answer to the question. Write your answer in the "
    "following "
    "format:\nAnswer: [answer]\n\n{demos}{context}\n\nQuestion: {question}"
)
# HELMET data.py: 2 demonstrations, titled passages, completion style, 20 new tokens, no stop sequence in
# effect
OFFICIAL = Prompt(
    "official",
    _OFFICIAL,
    prefill="Answer:",
    chat=False,
    unit="Document (Title: {title}): {text}",
    cut="end",
    max_gen_toks=20,
    source="princeton-nlp/HELMET data.py",
)
PROMPTS: dict[str, Prompt] = {**paper_prompts.PROMPTS, "official": OFFICIAL}
ARCHIVE = f"datasets/princeton-nlp/HELMET/resolve/{REVISION}/data.tar.gz"
ARCHIVE_SIZE = 11_271_916_108
_PAPER_DATASETS = ("nq", "hotpotqa", "triviaqa")  # Table 1 of the paper averages these three
SUBEM: dict[str, Any] = {
    "metric": "subem",
    "metric_definition": "normalised gold answer is a substring of the extracted answer (without a marker: "
    "of the whole "
    "visible text), maximum over aliases",
    "metric_version": 2,
}


def _tasks() -> list[Task]:
    return [
        Task(
            name,
            length,
            facts={
                "n": source.rows,
                "passages": k,
                "items": f"{QUESTIONS} questions x {source.variants} gold positions",
            },
            version="3-A",
        )
        for name, source in ((n, SOURCES[n]) for n in ("nq", "hotpotqa", "triviaqa", "popqa"))
        for length, k in PASSAGES.items()
    ]


def _groups() -> list[Group]:
    base, datasets = "icr_helmet_rag", ("nq", "hotpotqa", "triviaqa", "popqa")
    groups = [
        Group(f"{base}_{d}", f"HELMET-RAG {d}", [f"{base}_{d}_{size}" for size in PASSAGES], "subem")
        for d in datasets
    ]
    for suffix, chosen in (("", datasets), ("_paper", _PAPER_DATASETS)):
        title = f"HELMET-RAG{suffix.replace('_', ' ')}"
        for size in PASSAGES:
            members = [f"{base}_{d}_{size}" for d in chosen]
            groups.append(Group(f"{base}{suffix}_{size}", f"{title} {size}", members, "subem"))
        groups.append(Group(base + suffix, title, [f"{base}{suffix}_{size}" for size in PASSAGES], "subem"))
    return groups


@benchmark(
    "helmet_rag",
    title="HELMET-RAG",
    units="passages",
    marks_gold=True,
    chance=None,
    suite="1",
    aliases=("helmet",),
    metrics=scorers.BUNDLES["qa"],
    prompts=PROMPTS,
    source="princeton-nlp/HELMET data.tar.gz (KILT)",
    revision=REVISION,
    license="MIT (code); passages from Wikipedia, CC BY-SA",
    **SUBEM,
    cluster="question",
    scorer="qa",
)
class HelmetRag:
    """One 11 GB archive, streamed; a mirror may serve its members unpacked."""

    tasks = _tasks()
    groups = _groups()
    load = staticmethod(load)

    @staticmethod
    def demos(item: Item) -> str:
        """The two demonstrations of the official prompt."""
        shape = "{documents}\n\nQuestion: {question}\nAnswer: {answer}"
        parts = demos(item.fields["dataset"], item.fields["key"])
        return "".join(fill(shape, part) + "\n\n" for part in parts)

    @staticmethod
    def files(dataset: str, length: str | None) -> list[Remote]:
        """The file of one dataset at one length; length "demos" is its demonstrations."""
        source = SOURCES[dataset]
        name = source.demos if length == "demos" else source.test.format(k=PASSAGES[str(length)])
        sha = SHA256.get((dataset, str(length)))
        return [
            Remote(f"helmet/data/kilt/{name}", f"kilt/{name}", sha256=sha, archive=(ARCHIVE, ARCHIVE_SIZE))
        ]
