"""Hugging Face `.eval_results/*.yaml`: what a model's repository on the hub shows in its leaderboard.

One file a model, setting and benchmark below `OUT/OWNER/MODEL/.eval_results/`, to be copied into the model's
repository. The setting stands in the task's id and in the notes; the data set must be registered as a
benchmark on the hub, or the entries show on the model's card only.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from icr_tasks.registry import EXPORTS
from icr_tasks.storage import write_atomic

from ..ledgers.load import Run, TaskItems
from ..text.printed import settled
from ._source import Source


@EXPORTS.register("hf")
def hf(source: Source, out: Path) -> list[Path]:
    """Write the YAML files; a task whose data set has no hub id is left out and named."""
    files: dict[Path, list[dict[str, Any]]] = {}
    for run in source.named():
        folder = out / source.model(run) / ".eval_results"
        for task in run.tasks.values():
            entry = _entry(source, run, task)
            if entry:
                slug = re.sub(r"[^A-Za-z0-9._@=-]+", "_", f"{task.benchmark}-{run.setting}-{run.prompt}")[:80]
                files.setdefault(folder / f"icr-{slug}.yaml", []).append(entry)
    written = []
    for path, entries in sorted(files.items()):
        entries.sort(key=lambda e: str(e["dataset"]["task_id"]))
        write_atomic(path, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True).encode())
        written.append(path)
    return written


def _entry(source: Source, run: Run, task: TaskItems) -> dict[str, Any] | None:
    dataset = source.dataset(task)
    effect, reason = source.effect(run, task)
    if effect is None or dataset is None:
        missing = f"{task.benchmark}: no data set on the hub; give --dataset {task.benchmark}=OWNER/NAME"
        source.skipped.append(missing if effect is not None else f"{run.label}, {task.name}: {reason}")
        return None
    mean, low, high = effect.in_points()
    notes = [f"setting {run.setting}"] + ([f"prompt {run.prompt}"] if run.prompt else [])
    notes.append(f"{task.metric} x 100")
    if low == low and abs(low) != float("inf"):
        notes.append(f"95 % interval [{low:.1f}, {high:.1f}], {effect.clusters} clusters")
    notes.append(f"{effect.n} of {task.sheet.get('n_expected') or '?'} items")
    found: dict[str, Any] = {
        "dataset": {"id": dataset, "task_id": f"{task.name.removeprefix('icr_')}::{run.setting}"},
        "value": round(settled(mean), 2),
        "date": datetime.fromtimestamp(float(run.head.get("started") or 0), UTC).strftime("%Y-%m-%d"),
        "notes": "; ".join(notes),
    }
    if revision := task.sheet.get("data_revision"):
        found["dataset"]["revision"] = str(revision)
    if source.url:
        found["source"] = {"url": source.url, "name": source.organization or "icr-tasks"}
    return found
