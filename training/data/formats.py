"""A training row as a prompt, a reference completion, or a whole data set for a trainer.

The prompts are the objects the evaluation uses (`icr_tasks.benchmarks.base`), so the two cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Unit
from icr_tasks.errors import IcrError, unknown
from icr_tasks.metrics.answers import normalize

from ..rewards.words import FUNCTION
from .store import Record, read

FORMATS = ("ao", "id", "idc", "idq", "judge")
REWARD_COLUMNS = ("id", "question", "answers", "gold_ids", "gold_docs", "original_ids", "domain")
_QUOTE_CONTENT = 3  # words that say something, as the reward counts them
_QUOTE_WORDS = 25
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def prompt(name: str) -> base.Prompt:
    """The prompt object of a format (also the released code's variants: ao_code, idc_code, judge_code)."""
    return base.get("helmet_rag", name)


def messages(row: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    """Chat messages of a row under a prompt format."""
    form = prompt(name)
    units = [Unit(str(i), text) for i, text in enumerate(row["passages"])]
    return form.messages(context=form.context(units), question=row["question"])


def target(row: Mapping[str, Any], name: str) -> str:
    """A completion with the full reward of its format, for SFT. IcrError for `judge`, whose reasoning needs a
    teacher."""
    answer = row["answers"][0]
    ids = ", ".join(f"[DOC {i}]" for i in row["gold_ids"])
    match name:
        case "ao":
            return f"Answer: {answer}"
        case "id":
            return f"{ids}\nThe answer is: {answer}"
        case "idc":
            docs = "\n\n".join(
                f"[DOC {i}]\n{d}" for i, d in zip(row["gold_ids"], row["gold_docs"], strict=True)
            )
            return f"Relevant documents:\n{docs}\n\nThe answer is: {answer}"
        case "idq":
            spans = (quote(d, f"{row['question']} {answer}") for d in row["gold_docs"])
            quotes = "\n".join(f'Quote {n}: "{span}"' for n, span in enumerate(spans, 1))
            return f"{quotes}\n\nRelevant Document IDs: {ids}\n\nThe answer is: {answer}"
        case "judge":
            raise IcrError("format 'judge' has no reference completion: its reasoning needs a teacher model")
    raise unknown("prompt format", name, FORMATS)


def quote(document: str, about: str, size: int = _QUOTE_WORDS) -> str:
    """The sentence of the document that shares most words with `about`, at most `size` words of it."""
    wanted = set(normalize(about).split())
    parts = [s for s in _SENTENCE.split(document.strip()) if len(s.split()) >= 5] or [document.strip()]
    # A quote of function words earns nothing, so no target is made of one.
    sentences = [s for s in parts if len(set(normalize(s).split()) - FUNCTION) >= _QUOTE_CONTENT] or parts
    words = max(sentences, key=lambda s: len(wanted & set(normalize(s).split()))).split()
    starts = range(max(1, len(words) - size + 1))
    best = max(starts, key=lambda i: len(wanted & set(normalize(" ".join(words[i : i + size])).split())))
    return " ".join(words[best : best + size]).replace('"', "'")


def examples(path: Path, name: str, kind: str = "grpo", limit: int | None = None) -> Iterator[Record]:
    """Rows for a trainer: `prompt` (chat messages) with the reward columns, or with `completion` for SFT."""
    if kind not in ("grpo", "sft"):
        raise unknown("kind of training example", kind, ("grpo", "sft"))
    for number, row in enumerate(read(path)):
        if limit is not None and number >= limit:
            return
        asked = {"prompt": messages(row, name)}
        if kind == "sft":
            yield asked | {"completion": [{"role": "assistant", "content": target(row, name)}]}
        else:
            yield asked | {column: row[column] for column in REWARD_COLUMNS}


def verl(row: Mapping[str, Any], name: str, reward: str = "") -> Record:
    """A row in verl's shape, for `custom_reward_function` training/rewards/for_verl.py. `reward` where it is not
    that of the prompt format."""
    truth = {column: list(row[column]) for column in ("answers", "gold_ids", "gold_docs", "original_ids")}
    return {
        "data_source": f"icr/{row['dataset']}",
        "prompt": messages(row, name),
        "ability": "in-context-retrieval",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {
            "id": row["id"],
            "question": row["question"],
            "reward": reward or name.removesuffix("_code"),
        },
    }
