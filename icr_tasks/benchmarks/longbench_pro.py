"""LongBench Pro (caskcsg/LongBench-Pro): 25 tasks at six lengths, each with a metric of its own.

English and Chinese are tasks apart. Summaries (T4) are a data set of their own: half of their official score
is the similarity of an embedding model, which has to be named; without it they are scored by ROUGE.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ..metrics import answer_lines, scorers
from . import flat, lines
from .base import Item, ItemSet, Prompt, Unit, digest
from .declare import Group, Task, benchmark
from .pinned import Pinned

EXPECTED = 1500
_FILE = "longbench_pro.json"
DATA = Pinned(
    "caskcsg/LongBench-Pro",
    "4996884deae51f5e5d23c88da9d857fc54e5fa15",
    "Apache-2.0",
    {_FILE: "92ff05f6088e212d06c5a731ab86000b69cee6a0900cbbd524a25851e3c30de0"},
    "longbench_pro",
    sizes={_FILE: 531_535_940},
)
LENGTHS = ("8k", "16k", "32k", "64k", "128k", "256k")
LANGUAGES = {"en": "English", "zh": "Chinese"}
_TEXTS = (
    "id context language token_length primary_task secondary_task contextual_requirement question_nonthinking "
    "question_thinking difficulty"
)
_FIELDS: lines.Fields = {**dict.fromkeys(_TEXTS.split(), str), "answer": list}
# The metric of each task of the code T<first>.<second>; T6 has one a second number.
_METRICS = {
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
}
_METRICS_T6 = {1: "share", 2: "f1", 3: "order"}
_CODE = re.compile(r"T(\d+)\.(\d+)")


def load(
    dataset: str = "en", length: str | None = None, *, allow_partial: object = None, **_: Any
) -> ItemSet:
    """Questions of a language and length, with (`en_sum`) or without (`en`) summaries alone. Raises IcrError."""
    found = DATA.records(_FILE, _FIELDS, _keep)
    language, _sep, part = dataset.partition("_")
    wanted = (LANGUAGES[language], length, part == "sum")
    items = [
        _item(found, row)
        for row in found.rows
        if wanted
        == (row.kept["language"], row.kept["token_length"], kind(row.kept["secondary_task"]) == "summary")
    ]
    return DATA.items(items, [found], EXPECTED, allow_partial, count=len(found.rows))


def kind(secondary: str) -> str:
    """Which metric a task has, by its code ("T3.2 Single-Hop Fact QA"). ValueError for an unknown one."""
    code = _CODE.match(secondary)
    if code is None:
        raise ValueError(f"secondary_task {secondary!r} has no code like T3.2")
    first, second = int(code[1]), int(code[2])
    found = _METRICS_T6.get(second) if first == 6 else _METRICS.get(first)
    if found is None:
        raise ValueError(f"secondary_task {secondary!r} is none of T1 to T11")
    return found


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    kind(record["secondary_task"])
    lines.one_of(record, "language", LANGUAGES.values())
    lines.one_of(record, "token_length", LENGTHS)
    if not record["answer"] or not all(isinstance(a, str) for a in record["answer"]):
        raise ValueError("field 'answer' is not a list of texts")
    return {**{k: record[k] for k in _FIELDS if k != "context"}, "document": digest(record["context"])}


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
        fields={
            "thinking": kept["question_thinking"],
            "answer_type": kind(kept["secondary_task"]),
            "language": kept["language"],
        },
    )


def _units(found: flat.Records, row: Any) -> list[Unit]:
    return [Unit(row.kept["document"], found.read(row)["context"])]


@scorers.metric("lbpro", reads="text")
def lbpro(text: str, item: Item) -> float:
    """The official metric of the item's task, 0 to 1; 0 for an empty answer."""
    score = answer_lines.BY_NAME[item.fields["answer_type"]]
    return score(answer_lines.lines(text), [answer_lines.plain(a) for a in item.answers]) if text else 0.0


@scorers.metric("lbpro_answered", reads="text")
def answered(text: str, item: Item) -> float:
    """Whether the answer stands behind an [Answer] mark."""
    return float(answer_lines.region(text) is not None)


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
_SUMS = scorers.BUNDLES["lbpro_sum"]


def _tasks() -> list[Task]:
    found = []
    for language in LANGUAGES:
        start = "icr_longbench_pro" + ("" if language == "en" else f"_{language}")
        for n in LENGTHS:
            found.append(Task(language, n, name=f"{start}_{n}", facts={"metric_version": 2}, version="2-A"))
            facts = {
                "metric_definition": "ROUGE-L of sentences behind [Answer], a Chinese character a word; the official "
                "score, half an embedder's, is `summary`",
                "metric_version": 2,
            }
            found.append(
                Task(f"{language}_sum", n, name=f"{start}_sum_{n}", metrics=_SUMS, facts=facts, version="2-B")
            )
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
    **DATA.facts,
    metric_definition="each task's official metric: NDCG, order of pairs, accuracy, F1 or share of lines (0 to 1)",
    cluster="document",
    breakdown=["task", "difficulty", "requirement"],
)
class LongBenchPro:
    """One file with all lengths and both languages."""

    tasks = _tasks()
    counted = f"{EXPECTED} in all"
    groups = [
        Group(name, f"LongBench Pro ({LANGUAGES[language]})", [f"{name}_{n}" for n in LENGTHS], "lbpro")
        for language, name in (("en", "icr_longbench_pro"), ("zh", "icr_longbench_pro_zh"))
    ]
    load = staticmethod(load)
    files = DATA.all  # one file with all lengths and both languages
