"""The table `icr collect` prints: dataset x length with 95 % intervals, N and what was cut; averages only
over complete rows."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.settings import parse_tokens

from ..stats import Design, Effect, documents, objects
from ..text.names import DASH, estimate, number, plain, shortened
from .inputs import differing
from .load import Task, rows_by_task
from .unfinished import cut_note, percent, unfinished


def tokens(length: str | None) -> int:
    """Sort key of a nominal length: "4k" -> 4096; tasks without one come first."""
    return parse_tokens(length) if length else 0


@dataclass(frozen=True)
class Scored(Task):
    """What the table shows of a task: headline score (NaN where an item has none) and cluster of each item,
    as codes that the tasks of a run share; both of shape (items,)."""

    cluster: np.ndarray
    value: np.ndarray
    shared: np.ndarray | None = None


class Tally:
    """Makes the `Scored` of one run from ledger rows as they pass, a few bytes an item."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._tasks: dict[str, tuple[array[int], array[float]]] = {}
        self._metric: dict[str, str] = {}
        self._shared: dict[str, list[Any]] = {}

    def add(self, name: str, sheet: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
        """Rows of one task. Without a headline metric in the sheet the first one logged counts."""
        codes, values = self._tasks.setdefault(name, (array("q"), array("d")))
        metric = sheet.get("metric") or self._metric.get(name)
        if metric is None:
            metric = self._metric[name] = next((m for row in rows for m in row["score"]), None)  # type: ignore[assignment]
        known, group = self._known, sheet.get("benchmark") or name
        for row in rows:
            c = row.get("cluster")
            label = f"{group}/{c}" if c else f"{name}/{row['item']}/{row.get('occ', 0)}"
            codes.append(known.setdefault(label, len(known)))
            if "documents" in (row.get("keys") or {}):
                self._shared.setdefault(name, []).append(row["keys"]["documents"])
        values.extend([row["score"].get(metric, math.nan) for row in rows])

    def tasks(self, sheets: dict[str, dict[str, Any]]) -> dict[str, Scored]:
        """The tasks of run.json; those without rows have no items."""
        none: tuple[Any, Any] = (array("q"), array("d"))
        found = {name: self._tasks.get(name, none) for name in sheets}
        shared = {n: s for n, s in self._shared.items() if len(s) == len(found.get(n, none)[0])}
        return {
            n: Scored(
                n,
                sheets[n],
                np.array(codes, np.int64),
                np.array(values, float),
                objects(shared[n]) if n in shared else None,
            )
            for n, (codes, values) in found.items()
        }


def table(runs: list[tuple[Path, dict[str, Any]]], tallies: dict[str, Tally] | None = None) -> str:
    """Markdown, one block a model and prompt; a cell is `score ±half (scored/expected; % cut)` or `score [low, high] (...)`, an average
    with a gap a dash.

    `tallies` by fingerprint spares reading the ledgers again.
    """
    blocks: dict[tuple[str, str], dict[str, list[tuple[Path, dict[str, Any]]]]] = {}
    for folder, head in runs:
        block = blocks.setdefault((str(head["model"]["id"]), str(head["prompt"] or "")), {})
        block.setdefault(str(head["setting"]["text"]), []).append((folder, head))
    found = []
    for key, by_setting in sorted(blocks.items()):
        lines = []
        for setting, same in by_setting.items():
            for (folder, head), what in zip(same, differing([h for _, h in same]), strict=True):
                tally = (tallies or {}).get(head["fingerprint"]) or _read(folder, head)
                lines.append((f"{setting} {what}".strip(), tally.tasks(head["tasks"])))
        found.append(_block(*key, lines))
    return "\n\n".join(found)


def _read(folder: Path, head: dict[str, Any]) -> Tally:
    tally = Tally()
    for name, rows in rows_by_task(folder, head).items():
        tally.add(name, head["tasks"][name], rows)
    return tally


def score(tasks: list[Scored]) -> Effect | None:
    """Macro-averaged headline score of some tasks of one run (datasets equal, then lengths); None where one
    has none."""
    kept = [(task, ~np.isnan(task.value)) for task in tasks]
    if not kept or not all(at.any() for _, at in kept):
        return None
    n = [int(at.sum()) for _, at in kept]
    names = {dataset: i for i, dataset in enumerate(dict.fromkeys(t.dataset for t in tasks))}
    lengths = {length: i for i, length in enumerate(dict.fromkeys(t.length for t in tasks))}
    design = Design(
        np.concatenate([t.cluster[at] for t, at in kept]),
        np.repeat([lengths[t.length] for t in tasks], n),
        np.repeat([names[t.dataset] for t in tasks], n),
        documents([None if t.shared is None else t.shared[at] for t, at in kept], n),
    )
    return design.score(np.concatenate([t.value[at] for t, at in kept]))


def _block(model: str, prompt: str, runs: list[tuple[str, dict[str, Scored]]]) -> str:
    columns = sorted(
        {task.column for _, tasks in runs for task in tasks.values()},
        key=lambda c: (c[0], c[1], tokens(c[2])),
    )
    heads = [" ".join(p for p in (c[0] if c[1] in ("all", "rag") else c[1], c[2]) if p) for c in columns]
    name = f"**{shortened(plain(Path(model).name))}**" + (f", prompt {prompt}" if prompt else "")
    lines = [name, "", f"| setting | {' | '.join(heads)} | macro avg |"]
    lines.append("|---|" + "---:|" * (len(columns) + 1))
    notes: list[str] = []
    for setting, tasks in sorted(runs, key=lambda run: run[0]):
        found = {task.column: task for task in tasks.values()}
        cells = [_cell(found[c]) if c in found else DASH for c in columns]
        wrong = {n: why for n, t in tasks.items() if (why := _no_score(t))}
        whole = not wrong and all(c in found and found[c].complete for c in columns)
        lines.append(
            f"| {plain(setting)} | {' | '.join(cells)} | {_shown(score([*found.values()]) if whole else None)} |"
        )
        said = [(n, t.sheet["reason"]) for n, t in tasks.items() if t.sheet.get("reason")]
        said += [*wrong.items(), *((n, note) for n, t in tasks.items() if (note := cut_note(t.sheet)))]
        notes += [plain(f"{setting}, {n}: {text}") for n, text in said]
    lines += ["", "score x 100 with its 95 % interval, items of one question counted as one cluster"]
    lines.append("(scored/expected; % of prompts cut)")
    return "\n".join(lines + [f"- {note}" for note in notes])


def _no_score(task: Scored) -> str:
    """Why a task's values are shown as a dash, as a board does; empty where they are scores."""
    if not ((task.value < 0) | (task.value > 1)).any():
        return ""
    name = task.sheet.get("metric") or next(iter(task.sheet.get("means") or {}), "its metric")
    return f"{name} is not a score between 0 and 1"


def _shown(effect: Effect | None) -> str:
    if effect is None:
        return DASH
    mean, low, high = effect.in_points()
    return (
        estimate(mean, low, high) if math.isfinite(effect.se) else number(mean)
    )  # of one cluster no interval


def _cell(task: Scored) -> str:
    expected, scored = task.sheet.get("n_expected") or "?", task.sheet.get("n_scored", 0)
    effect = score([task])
    if _no_score(task):
        return f"{DASH} ({scored}/{expected})"
    if effect is None or not scored:
        return f"{DASH} ({scored if effect is None else 0}/{expected})"
    asked = scored + (task.sheet.get("n_failed") or 0)  # failed ones may be cut, too
    cut = f"; {100 * task.sheet['n_truncated'] / asked:.0f}% cut" if task.sheet.get("n_truncated") else ""
    cut += f"; {percent(share)} unfinished" if (share := unfinished(task.sheet)) else ""
    return f"{_shown(effect)} ({scored}/{expected}{cut})"
