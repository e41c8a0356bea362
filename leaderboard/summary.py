"""The table `icr collect` prints: dataset x length with 95 % intervals, N and what was cut; averages only over complete rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.errors import IcrError

from .load import Run, TaskItems, load_run
from .stats import Design, Effect
from .suite import DASH, points


def tokens(length: str | None) -> int:
    """Sort key of a nominal length: "4k" -> 4096; tasks without one come first."""
    if not length:
        return 0
    unit = {"k": 1024, "m": 1024**2}.get(length[-1].lower(), 1)
    try:
        return int(length.rstrip("kKmM")) * unit
    except ValueError as error:
        raise IcrError(f"length {length!r} is not a token count such as 4k") from error


def table(runs: list[tuple[Path, dict[str, Any]]]) -> str:
    """Markdown, one block a model and prompt; a cell is `score ±half (scored/expected; % cut)`, an average with a gap a dash."""
    blocks: dict[tuple[str, str], list[Run]] = {}
    for folder, head in runs:
        blocks.setdefault((str(head["model"]["id"]), str(head["prompt"])), []).append(
            load_run(folder, head, shown=True)
        )
    return "\n\n".join(_block(*key, found) for key, found in sorted(blocks.items()))


def score(tasks: list[TaskItems]) -> Effect | None:
    """Macro-averaged headline score of some tasks of one run (datasets equal, then lengths); None where one has none."""
    if (
        not tasks
        or any(task.metric not in task.score for task in tasks if task.score)
        or not all(t.score for t in tasks)
    ):
        return None
    kept = [(task, ~np.isnan(task.headline())) for task in tasks]
    if not all(at.any() for _, at in kept):
        return None
    cluster = [
        f"{t.benchmark}/{c}" if c else f"{t.name}/{i}/{o}"
        for t, at in kept
        for c, i, o in zip(t.cluster[at], t.item[at], t.occ[at], strict=True)
    ]
    length = [t.length for t, at in kept for _ in range(at.sum())]
    dataset = [t.dataset for t, at in kept for _ in range(at.sum())]
    return Design(cluster, length, dataset).score(np.concatenate([t.headline()[at] for t, at in kept]))


def _block(model: str, prompt: str, runs: list[Run]) -> str:
    columns = sorted(
        {_column(task) for run in runs for task in run.tasks.values()}, key=lambda c: (c[0], c[1], tokens(c[2]))
    )
    heads = [" ".join(p for p in (c[0] if c[1] in ("all", "rag") else c[1], c[2]) if p) for c in columns]
    lines = [f"**{Path(model).name}**, prompt {prompt}", "", f"| setting | {' | '.join(heads)} | macro avg |"]
    lines.append("|---|" + "---:|" * (len(columns) + 1))
    notes: list[str] = []
    for run in sorted(runs, key=lambda r: r.setting):
        found = {_column(task): task for task in run.tasks.values()}
        cells = [_cell(found[c]) if c in found else DASH for c in columns]
        whole = all(c in found and found[c].complete for c in columns)
        lines.append(f"| {run.setting} | {' | '.join(cells)} | {_shown(score([*found.values()]) if whole else None)} |")
        notes += [f"{run.setting}, {n}: {t.sheet['reason']}" for n, t in run.tasks.items() if t.sheet.get("reason")]
    lines += ["", "score x 100 ± half of the 95 % interval, items of one question counted as one cluster"]
    lines.append("(scored/expected; % of prompts cut)")
    return "\n".join(lines + [f"- {note}" for note in notes])


def _column(task: TaskItems) -> tuple[str, str, str]:
    return (task.sheet.get("benchmark") or "", task.sheet.get("dataset") or task.name, task.length)


def _shown(effect: Effect | None) -> str:
    if effect is None:
        return DASH
    low, high = effect.ci()
    return f"{points(effect.mean)} ±{points((high - low) / 2)}"


def _cell(task: TaskItems) -> str:
    expected, scored = task.sheet.get("n_expected") or "?", task.sheet.get("n_scored", 0)
    effect = score([task])
    if effect is None or not scored:
        return f"{DASH} ({scored if effect is None else 0}/{expected})"
    cut = f"; {100 * task.sheet['n_truncated'] / scored:.0f}% cut" if task.sheet.get("n_truncated") else ""
    return f"{_shown(effect)} ({scored}/{expected}{cut})"
