"""When two runs may be compared: `comparable(a, b, axis)`, the one answer for board, drop, trend, compare,
gate and check.

axis         | must be equal                                                     | may differ, and is noted
checkpoint   | everything below                                                  | nothing
setting      | all but what the setting decides                                  | setting, context, truncation
model        | items, golds, data, instruction, metric, judge, filter, clusters, | template, dtype, thinking, truncation,
             | prompt, shots, setting                                            | context

Two rows of a board that differ in model and setting are compared on both axes at once: what either allows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from icr_tasks.errors import unknown

from ..ledgers.dtypes import dtype_name
from ..ledgers.inputs import thoughts
from ..ledgers.load import Run, Task, TaskItems
from ..ledgers.unfinished import MARKED, unfinished

CHECKPOINT, SETTING, MODEL = "checkpoint", "setting", "model"
# What may differ on an axis; every other field of Identity must be equal.
FREE: dict[str, frozenset[str]] = {
    CHECKPOINT: frozenset(),
    SETTING: frozenset({"setting", "context", "truncation"}),
    MODEL: frozenset({"template", "dtype", "thinking", "context", "truncation"}),
}
# field -> (words, what to do)
WORDS: dict[str, tuple[str, str]] = {
    "benchmark": ("benchmark", "evaluate both with the same one"),
    "dataset": ("dataset", "evaluate both with the same one"),
    "length": ("length", "evaluate both with the same one"),
    "metric": ("metric", "score both again with one metric (icr-replay)"),
    "metric_version": ("metric version", "score both again with one metric (icr-replay)"),
    "data_revision": ("dataset revision", "evaluate both with the same one"),
    "judge": ("judge", "score both again with one metric (icr-replay)"),
    "filter": ("filter", "score both again with one metric (icr-replay)"),
    "task_version": ("task version", "evaluate both with the same one"),
    "prompt": ("prompt", "evaluate both with one --prompt, or --allow prompts"),
    "shots": ("number of shots", "evaluate both with one --num_fewshot, or --allow prompts"),
    "instruction": ("instruction text", "evaluate both with one version of the prompt, or --allow prompts"),
    "setting": ("setting", "evaluate both under the same one, or compare on the axis setting"),
    "template": ("chat template", "evaluate both with the same one, or --allow template"),
    "dtype": ("dtype", "evaluate both with the same one, or --allow dtype"),
    "thinking": ("switch of thoughts", "evaluate both with one `thinking`, or --allow thinking"),
    "clusters": ("cluster labels", "--allow clusters if items are independent"),
    "context": ("prompts under the same setting", "--allow prompts if intended"),
    "truncation": ("truncation", "use one max_model_len, or --allow truncation"),
}
# name that --allow knows -> fields it waives
WAIVED = {
    "prompts": ("prompt", "shots", "instruction", "context"),
    "truncation": ("truncation",),
    "clusters": ("clusters",),
    "template": ("template", "context"),
    "dtype": ("dtype",),
    "thinking": ("thinking",),
}
CUT_ABOVE = 0.01  # share of a cell's items whose cut prompts are marked in it


@dataclass(frozen=True)
class Refusal:
    """One reason. `check` is its name (prompts, items, ...), `task` where, `text` what differs, `fix` what to
    do."""

    check: str
    task: str
    text: str
    fix: str

    @property
    def short(self) -> str:
        """Without the remedy."""
        return f"{self.task}: {self.text}" if self.task else self.text

    def __str__(self) -> str:
        return f"{self.short}; {self.fix}"


@dataclass(frozen=True)
class Identity:
    """What a task of a run is, as far as it decides what it may be compared with.

    `clusters`, `context` and `truncation` digest the items' labels, prompts and cuts in the order of the
    items; they and every value that old ledgers do not hold may be None, which is not compared.
    """

    task: str
    benchmark: str
    dataset: str
    length: str
    metric: str | None
    metric_version: Any
    data_revision: str | None
    judge: str | None
    filter: str | None
    task_version: str  # without its letter, which is interface only
    prompt: str
    instruction: str | None
    setting: str
    template: str | None
    dtype: str | None
    thinking: str = ""  # what switches the model's thoughts
    shots: str | None = None
    clusters: int | None = None
    context: int | None = None
    truncation: int | None = None

    @cached_property
    def told(self) -> tuple[Any, ...]:
        """The fields of `WORDS`, in their order."""
        return tuple(getattr(self, f) for f in WORDS)

    @cached_property
    def kind(self) -> tuple[Any, ...]:
        """Equal for cells that may stand in one ranking of models and settings, as far as every ledger knows
        it."""
        return tuple(getattr(self, f) for f in _KIND)


# Not compared where one side does not know it: what ledgers of older versions lack.
_MAY_BE_UNKNOWN = ("shots", "instruction", "template", "dtype", "clusters", "context", "truncation")


# metric -> entry of a data sheet that names who gave it, where that is not the judge
_GIVEN_BY = {"judge_equiv": "judge_equiv", "summary": "embedder", "summary_other": "embedder"}


def identity(task: Task, head: dict[str, Any], order: np.ndarray | None = None) -> Identity:
    """Identity of a task of a run; with `order` (rows sorted by item) also the digests of its items."""
    sheet, inputs = task.sheet, head.get("fingerprint_inputs") or {}
    found = Identity(
        task=task.name,
        benchmark=task.benchmark,
        dataset=task.dataset,
        length=task.length,
        metric=sheet.get("metric"),
        metric_version=sheet.get("metric_version"),
        data_revision=sheet.get("data_revision"),
        judge=_text(sheet.get(_GIVEN_BY.get(str(sheet.get("metric")), "judge"))),
        filter=sheet.get("filter"),
        task_version=str(sheet.get("task_version")).partition("-")[0],
        prompt=str(sheet.get("prompt") or head.get("prompt") or ""),
        instruction=_text(sheet.get("instruction_sha") or inputs.get("instruction_sha")),
        setting=str(head["setting"]["text"]),
        template=_text(head.get("chat_template_sha") or inputs.get("chat_template_sha")),
        dtype=dtype_name((head.get("model") or {}).get("dtype")),
        thinking=thoughts(head),
        shots=_text(sheet.get("num_fewshot")),
    )
    if order is None or not isinstance(task, TaskItems):
        return found
    known = task.prompt_hash[order]
    return replace(
        found,
        clusters=hash(tuple(task.cluster[order].tolist())) if any(task.cluster) else None,
        context=hash(known.tobytes()) if known.all() else None,
        truncation=hash(task.truncated[order].tobytes()),
    )


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def allowed(axes: Collection[str] | str) -> frozenset[str]:
    """Fields that may differ on an axis, or on several at once. Raises IcrError for an unknown axis."""
    names = [axes] if isinstance(axes, str) else list(axes)
    for name in names:
        if name not in FREE:
            raise unknown("axis", name, list(FREE))
    return frozenset().union(*(FREE[name] for name in names))


_KIND = tuple(f for f in WORDS if f not in allowed((MODEL, SETTING)) and f not in _MAY_BE_UNKNOWN)


@lru_cache(maxsize=64)  # a board asks tens of thousands of times
def _free(axes: tuple[str, ...], allow: tuple[str, ...]) -> frozenset[str]:
    return allowed(axes) | {field for name in allow for field in WAIVED[name]}


def comparable(
    a: Identity, b: Identity, axis: Collection[str] | str, allow: Collection[str] = ()
) -> list[Refusal]:
    """Why two tasks must not be compared on this axis; empty when they may be. `allow` waives (`WAIVED`)."""
    free = _free((axis,) if isinstance(axis, str) else tuple(axis), tuple(allow))
    found = []
    for field, one, two in zip(WORDS, a.told, b.told, strict=True):
        if one == two or field in free or (field in _MAY_BE_UNKNOWN and None in (one, two)):
            continue
        words, fix = WORDS[field]
        shown = (
            f"other {words}" if isinstance(one, int) and field != "metric_version" else _both(words, one, two)
        )
        found.append(Refusal(field, a.task, shown, fix))
    return found


def _both(words: str, one: Any, two: Any) -> str:
    return f"different {words}, {one!r} and {two!r}"


def noted(a: Identity, b: Identity, axis: Collection[str] | str) -> list[str]:
    """What differs although the axis allows it."""
    free = allowed(axis)
    return [
        WORDS[f][0]
        for f in WORDS
        if f in free and None not in (getattr(a, f), getattr(b, f)) and getattr(a, f) != getattr(b, f)
    ]


def axis_of(base: Run, new: Run) -> tuple[str, ...]:
    """The axis on which two runs differ: another setting of a model, else another checkpoint."""
    return (SETTING,) if base.setting != new.setting else (CHECKPOINT,)


def marks(sheet: dict[str, Any], *, short: bool = False) -> tuple[str, ...]:
    """What stands in a cell on every axis: unofficial data, many prompts cut, many answers unfinished (not
    when `short`, where `unfinished.cut_note` says it in a sentence)."""
    n = (sheet.get("n_scored") or 0) + (sheet.get("n_failed") or 0)
    found = ["unofficial data"] if sheet.get("official") is False else []
    cut = (sheet.get("n_truncated") or 0) / n if n else 0.0
    if cut > CUT_ABOVE:
        found.append(f"cut {100 * cut:.0f} %")
    if not short and (share := unfinished(sheet)) > MARKED:
        found.append(f"unfinished {100 * share:.0f} %")
    return tuple(found)


def differences(known: Iterable[tuple[str, Identity]]) -> Iterator[str]:
    """What keeps tasks of one name out of one ranking: a sentence for each field that has several values.

    `known` are (run, identity).
    """
    by_task: dict[str, list[tuple[str, Identity]]] = {}
    for run, one in known:
        by_task.setdefault(one.task, []).append((run, one))
    for task, listed in sorted(by_task.items()):
        first_run, first = listed[0]
        said: set[str] = set()
        for run, other in listed[1:]:
            for refusal in comparable(first, replace(other, prompt=first.prompt), (MODEL, SETTING)):
                if refusal.check not in said:
                    said.add(refusal.check)
                    yield f"{task}: {refusal.text} in {first_run} and {run}; not ranked together"
