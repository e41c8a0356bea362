"""InfiniteBench En.MC (229), En.QA (351), En.Sum (103): the official longbook_*_eng.jsonl files.

Fields: id, context, input, answer (list), options (list; only En.MC has any). Contexts stay on disk;
questions of one book share a cluster.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import IcrError, unknown
from ..metrics import scorers
from ..storage import allow_partial as partial_allowed
from ..storage import data_root, fingerprint, require, short
from . import lines
from .base import Item, ItemSet, Prompt, Unit
from .declare import Group, Task, benchmark
from .fetch import Remote

REVISION = "90f0394333616266d9fe85824ceaf505093cbaa5"  # its files' sha256 are those the hub gives
FILES = {
    "mc": ("longbook_choice_eng.jsonl", 229),
    "qa": ("longbook_qa_eng.jsonl", 351),
    "sum": ("longbook_sum_eng.jsonl", 103),
}


_FIELDS: lines.Fields = {"id": (int, str), "context": str, "answer": (str, list)}
_ASKED: lines.Fields = {**_FIELDS, "input": str}  # a summary has no question


def load(dataset: str, length: str | None = None, *, allow_partial: object = None, **_: Any) -> ItemSet:
    """Items of one split. Raises IcrError for names, missing, corrupt or short files, missing fields, and
    options without the answer."""
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
    book = _book_id(record["context"])
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


_LAST = ("", "")  # text and name of the book before


def _book_id(text: str) -> str:
    """Names a book by its text; the questions of a book follow each other in the files."""
    global _LAST
    if text != _LAST[0]:
        _LAST = (text, hashlib.sha256(text.encode()).hexdigest()[:12])
    return _LAST[1]


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


# ---- prompts -------------------------------------------------------------------------------------
# InfiniteBench En.MC, En.QA and En.Sum: the paper's Table 7 and the benchmark's own (its GPT-4 set).

PAPER, OFFICIAL = "arXiv 2601.18527, Table 7", "OpenBMB/InfiniteBench src/prompt.py (GPT-4 set)"
_ANSWER = 'Format your response as follows: "The answer is (insert answer here)".'
_CHOICES = "A. {choice_a}\nB. {choice_b}\nC. {choice_c}\nD. {choice_d}"
_HELPFUL = "You are a helpful assistant"
_QUESTION = "Question: {question}\n\n"
_MC = _QUESTION + "Only one of the following options is correct:\n\n" + _CHOICES + "\n\n" + _ANSWER
_MC_OFFICIAL = (
    _QUESTION
    + "Only one of the following options is correct, tell me the answer using one single letter (A, B, C, or "
    "D). Don't say anything else.\n" + _CHOICES
)
_READ = "Read the book below and answer the question.\n\n{context}\n\n"


def _both(paper: Prompt, official: Prompt) -> dict[str, Prompt]:
    return {"paper": paper, "official": official}


def _book(name: str, user: str, system: str, **more: object) -> Prompt:
    defaults = {
        "unit": "{text}",
        "joiner": "\n",
        "cut": "middle",
        "source": OFFICIAL if name == "official" else PAPER,
    }
    return Prompt(name, user, system, **{**defaults, **more})  # type: ignore[arg-type]


PROMPTS: dict[str, dict[str, Prompt]] = {
    "qa": _both(
        _book(
            "paper",
            _READ + _QUESTION + _ANSWER,
            "You are an expert in answering questions about books.",
            no_context=_QUESTION + _ANSWER,
        ),
        _book(
            "official",
            "Read the book below and answer a question.\n\n{context}\n\n" + _QUESTION + "Be very concise.",
            _HELPFUL,
            no_context=_QUESTION + "Be very concise.",
            max_gen_toks=40,
        ),
    ),
    "mc": _both(
        _book(
            "paper",
            _READ + _MC,
            "You are an expert in multiple-choice question answering about books.",
            no_context=_MC,
        ),
        _book(
            "official",
            "Read the book and answer the question.\n\n{context}\n\n" + _MC_OFFICIAL,
            _HELPFUL,
            no_context=_MC_OFFICIAL,
            max_gen_toks=40,
        ),
    ),
    "sum": _both(
        _book("paper", "Summarize the book below.\n\n{context}.", "You are an expert in summarizing books."),
        _book("official", "Summarize the following book.\n\n{context}", _HELPFUL, max_gen_toks=1200),
    ),
}


_DEFINED = {
    "mc": (
        "acc_choice",
        "acc",
        "the option that the answer names, by letter or text; acc is the official scorer at 51d9b37b (the "
        "headline under "
        "prompt official), acc_v1 the one behind the published table, acc_xfinder the paper's",
    ),
    "qa": (
        "subem",
        "f1",
        "SubEM on the extracted answer, the paper's metric; f1 is the official token F1 (the headline "
        "under prompt official)",
    ),
    "sum": ("rougeLsum", "rougeLsum", "rougeLsum F without stemmer, the official score"),
}


def _task(dataset: str) -> Task:
    metric, official, definition = _DEFINED[dataset]
    changed = metric != official  # version 2: another headline than before; ROUGE stays what it was
    facts = {
        "n": FILES[dataset][1],
        "metric": metric,
        **({"metric_official": official} if changed else {}),
        "metric_definition": definition,
        "metric_version": 2 if changed else 1,
        "scorer": f"infbench_{dataset}",
    }
    version = "2-A" if changed else "1-A"
    return Task(dataset, facts=facts, metrics=scorers.BUNDLES[f"infbench_{dataset}"], version=version)


@benchmark(
    "infbench",
    title="InfiniteBench",
    units="documents",
    marks_gold=False,
    chance={"mc": 0.25},
    suite="1",
    metrics=scorers.BUNDLES["infbench_qa"],
    prompts=PROMPTS,
    source="xinrongzhang2022/InfiniteBench",
    revision=REVISION,
    license="MIT",
    cluster="book",
    typical_tokens=200_000,
)
class InfiniteBench:
    """Three files of questions about whole books."""

    tasks = [_task(dataset) for dataset in ("mc", "qa", "sum")]
    groups = [Group("icr_infbench", "InfiniteBench", [f"icr_infbench_{d}" for d in ("mc", "qa", "sum")])]
    load = staticmethod(load)

    @staticmethod
    def files(dataset: str, length: str | None) -> list[Remote]:
        """The one file of a split."""
        name = FILES[dataset][0]
        return [
            Remote(
                f"infinitebench/{name}",
                f"datasets/xinrongzhang2022/InfiniteBench/resolve/{REVISION}/{name}",
            )
        ]
