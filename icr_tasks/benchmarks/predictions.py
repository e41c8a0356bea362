"""Anybody's predictions for a task, read in one way by `icr score` and `--model icr-replay`.

JSON lines (plain or .gz) with `id` and `prediction` (or `pred`); `task` where a file holds several
tasks, `model` where it holds several models, `label` or `ground_truth` where it brings gold answers. Ids are
those of the items, exactly: an id is never guessed from a part of another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import IcrError, unknown
from .lines import records

# InfiniteBench's released results name its own tasks and count from 0; our ids carry the dataset before that
# number.
_OFFICIAL = {
    "longbook_choice_eng": ("icr_infbench_mc", "mc"),
    "longbook_qa_eng": ("icr_infbench_qa", "qa"),
    "longbook_sum_eng": ("icr_infbench_sum", "sum"),
}
_COUNTED = {task: f"{dataset}-" for task, dataset in _OFFICIAL.values()}


@dataclass(frozen=True)
class Prediction:
    """One line as it is: `task` is None where the file names none, `gold` where it brings none; `text` may be
    null or another kind of value, which scoring counts as unreadable."""

    task: str | None
    id: str
    text: Any
    gold: Any = None
    finish_reason: str | None = None


def read(path: Path, *, task: str | None = None, model: str | None = None) -> list[Prediction]:
    """The predictions of a file, or of one task and model of it, in its order.

    Raises IcrError for lines that are none (counted, with the first of each kind), for an unknown `model` and for
    several models with none chosen.
    """
    found, models = [], Counter[str]()
    bad: dict[str, list[int]] = {}
    for number, record in records(path):
        named = record.get("task")
        of = None if named is None else _OFFICIAL.get(str(named), (str(named),))[0]
        if task is not None and of not in (None, task):
            continue
        if "model" in record:
            models[str(record["model"])] += 1
            if model is not None and str(record["model"]) != model:
                continue
        text = record.get("prediction", record.get("pred"))
        if (lacks := _lacks(record)) is not None:
            bad.setdefault(lacks, []).append(number)
            continue
        gold = next((record[k] for k in ("label", "ground_truth") if k in record), None)
        found.append(Prediction(of, str(record["id"]), text, gold, record.get("finish_reason")))
    if bad:
        raise IcrError(f"{path}: {_told(bad)}; every line needs an `id` and a `prediction` (or `pred`)")
    if model is not None and model not in models:
        raise unknown("model in the predictions", model, models)
    if model is None and len(models) > 1:
        raise IcrError(
            f"{path} holds several models; choose one with --model (icr-replay: model=NAME): "
            f"{', '.join(sorted(models))}"
        )
    return found


def _lacks(record: Mapping[str, Any]) -> str | None:
    """Why no item can be told from a line, or its answer; an answer that is no text is for scoring to count."""
    if "id" not in record:
        return "without `id`"
    if isinstance(record["id"], bool) or not isinstance(record["id"], str | int):
        return "with an `id` that is neither text nor a whole number"
    if not isinstance(record.get("finish_reason"), str | None):
        return "with a `finish_reason` that is no text"
    return None if {"prediction", "pred"} & set(record) else "without `prediction` (or `pred`)"


def _told(bad: Mapping[str, list[int]]) -> str:
    """ "2 lines without `id` (4, 9)": how many lines of each kind, and which."""
    kinds = []
    for kind, lines in bad.items():
        shown = ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")
        kinds.append(f"{len(lines)} line{'s' if len(lines) > 1 else ''} {kind} ({shown})")
    return "; ".join(kinds)


def item_id(task: str, given: str) -> str:
    """The id of the item that a prediction of this task means: the same text, but InfiniteBench's own
    numbers."""
    start = _COUNTED.get(task, "")
    return f"{start}{given}" if start and given.isdecimal() else given


def problems(
    task: str, given: Iterable[str], known: Mapping[str, Any], expected: int | None = None
) -> dict[str, int]:
    """How many ids come twice, belong to no item of the task, or miss; kinds with none are left out."""
    counts = Counter(item_id(task, i) for i in given)
    hits = sum(1 for i in counts if i in known)
    found = {
        "duplicate": sum(n - 1 for n in counts.values()),
        "unknown": len(counts) - hits,
        "missing": max((len(known) if expected is None else expected) - hits, 0),
    }
    return {kind: count for kind, count in found.items() if count}


def refuse(path: Path | str, task: str, found: Mapping[str, int], expected: int, fix: str) -> IcrError:
    """The error for predictions that do not cover a task exactly."""
    shown = ", ".join(f"{count} {kind}" for kind, count in found.items())
    return IcrError(f"{path}: {shown} ids for {task} (expected {expected}); {fix}")
