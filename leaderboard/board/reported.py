"""What others report of the newer benchmarks, as reference rows with source and month: shown, never ranked; and which of our
runs cannot be right at the same time.

A figure and a run are compared where model, benchmark, dataset, length, metric and setting (and prompt, where the report
names it) are the same and the run is complete. A figure over all lengths of a benchmark is shown and compared with no
task. They contradict each other where they differ by more than both can be off: our 99.99 % interval,
wider by the square root of two because the report has an error as well, and half of its last digit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from icr_tasks.errors import IcrError

from ..ledgers.load import Run, TaskItems
from ..stats import Design

_LEVEL = 0.9999  # of one comparison: a tree holds many


@cache
def rows() -> list[dict[str, Any]]:
    """reported.json: model, names it goes by, benchmark, dataset, length (None: all), metric, value, n, source, date, note;
    setting where it is not `full`, prompt where it is one of ours."""
    return list(orjson.loads(Path(__file__).with_name("reported.json").read_bytes())["rows"])


def known(model: str) -> bool:
    """Whether anybody reports anything of that model."""
    return _plain(model) in {_plain(name) for row in rows() for name in row["names"]}


def of(run: Run, task: TaskItems) -> Iterator[dict[str, Any]]:
    """Reports of the same model on the same task and metric, in the same setting and prompt."""
    model = run.model
    for row in rows():
        same = (row["benchmark"], f"{row['benchmark']}/{row['dataset']}", row["length"] or "")
        asked = (task.benchmark, task.dataset, task.length)
        if row.get("setting", "full") != run.setting or row.get("prompt", run.prompt) != run.prompt:
            continue
        if same == asked and row["metric"] == task.metric and _plain(model) in map(_plain, row["names"]):
            yield row


def _plain(model: str) -> str:
    """A model's name without owner, case and punctuation: "openai/GPT-5.2" is "gpt52".

    >>> _plain("openai/GPT-5.2") == _plain("gpt-5.2")
    True
    """
    return re.sub(r"[^a-z0-9]", "", model.rsplit("/", 1)[-1].lower())


def contradictions(run: Run) -> Iterator[str]:
    """A sentence for each report that this run and the report cannot both be right about."""
    for task in run.tasks.values():
        if not task.complete or not len(task):
            continue
        try:
            scores = task.headline()
        except IcrError:
            continue  # a run without the metric has a problem of its own
        there = ~_missing(scores)
        if not there.any():
            continue
        ours = Design(task.cluster[there], shared=_some(task.shared, there)).score(scores[there])
        for row in of(run, task):
            low, high = ours.ci(_LEVEL)
            gap = abs(100 * ours.mean - row["value"])
            half = ours.mean - low if row["value"] < 100 * ours.mean else high - ours.mean
            chance = 100 * math.sqrt(2) * half + 10.0 ** -_digits(row["value"]) / 2
            if math.isfinite(chance) and gap > chance:
                yield (
                    f"{task.name}: {100 * ours.mean:.1f} here, {row['value']} reported for {row['model']} by "
                    f"{row['source']} ({row['date']}); {gap:.1f} points are more than chance explains "
                    f"({chance:.1f}): both cannot be right" + (f" ({row['note']})" if row["note"] else "")
                )


def _missing(scores: Any) -> Any:
    return scores != scores  # NaN


def _some(shared: list[Any] | None, there: Any) -> list[Any] | None:
    return None if shared is None else [s for s, kept in zip(shared, there, strict=True) if kept]


def _digits(value: float) -> int:
    """Decimals of a printed figure: 69 -> 0, 69.7 -> 1."""
    return 0 if isinstance(value, int) else len(f"{value}".partition(".")[2])
