"""Anybody's predictions for a task, read in one way by `icr score` and `--model icr-replay`.

JSON lines (plain or .gz) with `id` and a text `prediction` (or `pred`); `task` where a file holds several
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

    Raises IcrError for a line that is none, for an unknown `model` and for several models with none chosen.
    """
    found, models = [], Counter[str]()
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
        if "id" not in record or not {"prediction", "pred"} & set(record):
            raise IcrError(f"{path}:{number}: needs `id` and a text `prediction` (or `pred`)")
        gold = next((record[k] for k in ("label", "ground_truth") if k in record), None)
        found.append(Prediction(of, str(record["id"]), text, gold, record.get("finish_reason")))
    if model is not None and model not in models:
        raise unknown("model in the predictions", model, models)
    if model is None and len(models) > 1:
        raise IcrError(
            f"{path} holds several models; choose one with --model (icr-replay: model=NAME): "
            f"{', '.join(sorted(models))}"
        )
    return found


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


def refuse(path: Path, task: str, found: Mapping[str, int], expected: int, fix: str) -> IcrError:
    """The error for predictions that do not cover a task exactly."""
    shown = ", ".join(f"{count} {kind}" for kind, count in found.items())
    return IcrError(f"{path}: {shown} ids for {task} (expected {expected}); {fix}")
