"""LongBench Pro (caskcsg/LongBench-Pro): 25 tasks at six lengths, each with a metric of its own.

English and Chinese are tasks apart. Summaries (T4) are a data set of their own: half of their official score
is the similarity of an embedding model, which is not computed here; they are scored by ROUGE and named so.
"""

from __future__ import annotations

import hashlib
import math
import re
from functools import partial
from typing import Any

from .. import storage
from ..metrics import scorers
from . import flat, lines
from .base import Item, ItemSet, Prompt, Unit
from .declare import Group, Task, benchmark
from .fetch import Remote

EXPECTED = 1500
REVISION, SIZE = "4996884deae51f5e5d23c88da9d857fc54e5fa15", 531_535_940
SHA256 = "92ff05f6088e212d06c5a731ab86000b69cee6a0900cbbd524a25851e3c30de0"
LENGTHS = ("8k", "16k", "32k", "64k", "128k", "256k")
LANGUAGES = {"en": "English", "zh": "Chinese"}
_FIELDS: lines.Fields = {
    "id": str,
    "context": str,
    "language": str,
    "token_length": str,
    "primary_task": str,
    "secondary_task": str,
    "contextual_requirement": str,
    "question_nonthinking": str,
    "question_thinking": str,
    "answer": list,
    "difficulty": str,
}
_CODE = re.compile(r"T(\d+)\.(\d+)")


def load(
    dataset: str = "en", length: str | None = None, *, allow_partial: object = None, **_: Any
) -> ItemSet:
    """Questions of a language and length, with (`en_sum`) or without (`en`) summaries alone. Raises IcrError."""
    found = flat.load("longbench_pro/longbench_pro.json", "longbench_pro", _FIELDS, _keep, "longbench-pro-1")
    whole = len(found.rows) == EXPECTED
    if not whole and not storage.allow_partial(allow_partial):
        raise storage.short(found.source, "questions", len(found.rows), EXPECTED)
    language, _sep, part = dataset.partition("_")
    rows = [
        r
        for r in found.rows
        if r.kept["language"] == LANGUAGES[language]
        and r.kept["token_length"] == length
        and (kind(r.kept["secondary_task"]) == "summary") == (part == "sum")
    ]
    items = [_item(found, row) for row in rows]
    notes = flat.other([found], [SHA256], REVISION)
    sha = f"sha256:{found.sha256[:16]}"
    return ItemSet(items, len(items), found.source.name, sha, whole and not notes, notes)


def kind(secondary: str) -> str:
    """Which metric a task has, by its code ("T3.2 Single-Hop Fact QA"). ValueError for an unknown one."""
    code = _CODE.match(secondary)
    if code is None:
        raise ValueError(f"secondary_task {secondary!r} has no code like T3.2")
    first, second = int(code[1]), int(code[2])
    if first == 6:
        found = {1: "share", 2: "f1", 3: "order"}.get(second)
    else:
        found = {
            1: "ndcg",
            2: "order",
            3: "first",
            4: "summary",
            5: "f1",
            7: "f1",
            8: "share",
            9: "f1",
            10: "share",
            11: "first",
        }.get(first)
    if found is None:
        raise ValueError(f"secondary_task {secondary!r} is none of T1 to T11")
    return found


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    kind(record["secondary_task"])
    if record["language"] not in LANGUAGES.values() or record["token_length"] not in LENGTHS:
        raise ValueError(
            f"language {record['language']!r} or token_length {record['token_length']!r} is unknown"
        )
    if not record["answer"] or not all(isinstance(a, str) for a in record["answer"]):
        raise ValueError("field 'answer' is not a list of texts")
    document = hashlib.sha256(record["context"].encode()).hexdigest()[:16]
    return {**{k: record[k] for k in _FIELDS if k != "context"}, "document": document}


def _item(found: flat.Records, row: Any) -> Item:
    kept = row.kept
    return Item(
        kept["id"],
        kept["question_nonthinking"],
        tuple(kept["answer"]),
        kept["document"],
        partial(_units, found, row),
        keys={
            "length": kept["token_length"],
            "task": kept["secondary_task"],
            "difficulty": kept["difficulty"],
            "requirement": kept["contextual_requirement"],
        },
        fields={"thinking": kept["question_thinking"], "answer_type": kind(kept["secondary_task"])},
    )


def _units(found: flat.Records, row: Any) -> list[Unit]:
    return [Unit(row.kept["document"], found.read(row)["context"])]


# ---- metric --------------------------------------------------------------------------------------

_MARK = re.compile(r"\[(?:Answer|答案)\]", re.I)


def answer_lines(text: str) -> list[str]:
    """What follows the last [Answer] (everything without one), line by line, lower case, blanks collapsed."""
    region = _MARK.split(text)[-1]
    return [line for raw in region.strip().split("\n") if (line := " ".join(raw.lower().split()))]


@scorers.metric("lbpro", reads="text")
def lbpro(text: str, item: Item) -> float:
    """The official metric of the item's task, 0 to 1."""
    gold = [" ".join(a.lower().split()) for a in item.answers]
    return _METRICS[item.fields["answer_type"]](answer_lines(text), gold)


def _ndcg(said: list[str], gold: list[str]) -> float:
    gains = {g: len(gold) - n for n, g in enumerate(gold)}
    best = sum(gain / math.log2(n + 2) for n, gain in enumerate(gains.values()))
    ranked = list(dict.fromkeys(said))[: len(gold)]
    return sum(gains.get(s, 0) / math.log2(n + 2) for n, s in enumerate(ranked)) / best


def _order(said: list[str], gold: list[str]) -> float:
    place = {g: n for n, g in enumerate(gold)}
    pairs = [(a, b) for n, a in enumerate(said) for b in said[n + 1 :]]
    right = sum(a in place and b in place and place[a] < place[b] for a, b in pairs)
    return right / len(pairs) if pairs else 0.0


def _first(said: list[str], gold: list[str]) -> float:
    return float(bool(said) and said[0] == gold[0])


def _f1(said: list[str], gold: list[str]) -> float:
    hits = len(set(said) & set(gold))
    return 2 * hits / (len(set(said)) + len(set(gold)))


def _share(said: list[str], gold: list[str]) -> float:
    return sum(g in said for g in gold) / len(gold)


_METRICS = {"ndcg": _ndcg, "order": _order, "first": _first, "f1": _f1, "share": _share}


@scorers.metric("lbpro_answered", reads="text")
def answered(text: str, item: Item) -> float:
    """Whether the answer stands behind an [Answer] mark."""
    return float(bool(_MARK.search(text)))


def _prompt(name: str, question: str, tokens: int) -> Prompt:
    return Prompt(
        name,
        user="{context}\n\n\n\n" + question,
        no_context=question,
        unit="{text}",
        joiner="\n\n",
        cut="middle",
        max_gen_toks=tokens,
        source="caskcsg/LongBench-Pro",
    )


_OURS = ("lbpro", "lbpro_answered", *scorers.COST)
_SUMS = scorers.BUNDLES["infbench_sum"]


def _tasks() -> list[Task]:
    found = []
    for language in LANGUAGES:
        start = "icr_longbench_pro" + ("" if language == "en" else f"_{language}")
        for n in LENGTHS:
            found.append(Task(language, n, name=f"{start}_{n}"))
            facts = {
                "metric_definition": "ROUGE-L of sentences; the official score has an embedding's half beside it"
            }
            found.append(Task(f"{language}_sum", n, name=f"{start}_sum_{n}", metrics=_SUMS, facts=facts))
    return found


@benchmark(
    "longbench_pro",
    title="LongBench Pro",
    units="documents",
    marks_gold=False,
    chance=None,
    metrics=_OURS,
    prompts={
        "nonthinking": _prompt("nonthinking", "{question}", 1024),
        "thinking": _prompt("thinking", "{thinking}", 8192),
    },
    source="caskcsg/LongBench-Pro",
    revision=REVISION,
    license="Apache-2.0",
    metric_definition="each task's official metric: NDCG, order of pairs, accuracy, F1 or share of lines (0 to 1)",
    cluster="document",
    breakdown=["task", "difficulty", "requirement"],
)
class LongBenchPro:
    """One file with all lengths and both languages."""

    tasks = _tasks()
    groups = [
        Group(
            "icr_longbench_pro",
            "LongBench Pro (English)",
            [f"icr_longbench_pro_{n}" for n in LENGTHS],
            "lbpro",
        ),
        Group(
            "icr_longbench_pro_zh",
            "LongBench Pro (Chinese)",
            [f"icr_longbench_pro_zh_{n}" for n in LENGTHS],
            "lbpro",
        ),
    ]
    load = staticmethod(load)

    @staticmethod
    def files(dataset: str, length: str | None) -> list[Remote]:
        """The one file."""
        name = "longbench_pro.json"
        url = f"datasets/caskcsg/LongBench-Pro/resolve/{REVISION}/{name}"
        return [Remote(f"longbench_pro/{name}", url, size=SIZE, sha256=SHA256)]
