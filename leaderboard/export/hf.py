"""Hugging Face `.eval_results/*.yaml`: what a model's repository on the hub shows in its leaderboard.

One file a model, setting and benchmark below `OUT/OWNER/MODEL/.eval_results/`, to be copied into the model's
repository. The setting stands in the task's id and in the notes; the data set must be registered as a
benchmark on the hub, or the entries show on the model's card only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from icr_tasks.registry import EXPORTS
from icr_tasks.storage import write_atomic

from ..ledgers.check import began
from ..ledgers.inputs import switches
from ..ledgers.ledger import slug
from ..ledgers.load import Run, TaskItems
from ..pairs.axes import marks
from ..text.printed import settled
from ._source import Source


@EXPORTS.register("hf")
def hf(source: Source, out: Path) -> list[Path]:
    """Write the YAML files; a task whose data set has no hub id is left out and named."""
    files: dict[Path, dict[str, list[dict[str, Any]]]] = {}  # of each file the entries of each run
    for run in source.named():
        folder = out / source.model(run) / ".eval_results"
        for task in run.tasks.values():
            entry = _entry(source, run, task)
            if entry:
                name = slug(f"icr-{task.benchmark}-{run.setting}-{run.prompt}")
                runs = files.setdefault(folder / f"{name}.yaml", {})
                runs.setdefault(run.fingerprint, []).append(entry)
    written = []
    for path, runs in sorted(files.items()):
        for run_id, entries in sorted(runs.items()):
            own = path
            if len(runs) > 1:  # dtypes, thinking or the like: one file would hold two values of one task
                own = path.with_name(f"{path.stem}-{slug(run_id)}.yaml")
                for entry in entries:
                    entry["notes"] += f"; run {run_id}"
            entries.sort(key=lambda e: str(e["dataset"]["task_id"]))
            write_atomic(own, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True).encode())
            written.append(own)
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
    notes += [how] if (how := switches(run.head)) else []
    notes.append(f"{task.metric} x 100")
    if low == low and abs(low) != float("inf"):
        notes.append(f"95 % interval [{low:.1f}, {high:.1f}], {effect.clusters} clusters")
    notes.append(f"{effect.n} of {task.sheet.get('n_expected') or '?'} items")
    notes += marks(task.sheet)
    found: dict[str, Any] = {
        "dataset": {"id": dataset, "task_id": f"{task.name.removeprefix('icr_')}::{run.setting}"},
        "value": round(settled(mean), 2),
        "notes": "; ".join(notes),
    }
    if (when := began(run.head)) is not None:
        found["date"] = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d")
    if revision := task.sheet.get("data_revision"):
        found["dataset"]["revision"] = str(revision)
    if source.url:
        found["source"] = {"url": source.url, "name": source.organization or "icr-tasks"}
    return found
