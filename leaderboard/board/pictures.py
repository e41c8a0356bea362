"""Which pictures a board gets, in the order in which they are read: what to use, lengths, cost, depth, drop,
checkpoints. Their data come from the rows; `plots` draws."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ..ledgers.inputs import switches
from ..plots import Chart, Dot, Step, forest, pareto, trend
from ..plots import Row as ForestRow
from ..text.names import title
from .cells import Column, short_column
from .costs import macro
from .join import started
from .picture_depth import heats
from .picture_lengths import choices, curves, models, point, telling
from .rows import Row, columns_of, difference, suite_of
from .tables import Table

if TYPE_CHECKING:
    from .build import Board

MANY = 12  # models: of more, so many have pictures
STATIC = 4  # models that get pictures of their own in board.md; board.html lets the reader choose among more
# `run-step-300`, and `run@300` as `icr collect` calls a trainer's folder run/checkpoint-300
_STEP = re.compile(r"(.*?)(?:[-_/@]?(?:checkpoint|global_step|step)[-_]?|@)(\d+)$")
GROUPS = {
    "length": "Score by context length",
    "choice": "What to use",
    "models": "Models under one setting",
    "cost": "Score against cost",
    "depth": "Depth",
    "drop": "Points lost under compression",
    "trend": "Checkpoints",
}


@dataclass(frozen=True)
class Picture:
    """`name` of its files, `group` of GROUPS; `static`: also files, not only in board.html."""

    name: str
    group: str
    chart: Chart
    static: bool = True


def pictures(board: Board) -> list[Picture]:
    """All of them; names are unique."""
    rows = board.rows
    found: dict[str, Picture] = {}
    shown = models(rows)
    many = len(shown) > MANY
    if many:
        board.left_out["pictures"] = (
            f"of many models the {MANY} with most settings have pictures of their own"
        )
        shown = shown[:MANY]
    for k, own in enumerate(shown):
        for name, chart in curves(own, each_dataset=not many):
            _add(found, "length", f"length-{name}", chart, k < STATIC)
    place = {
        (own[0].name, own[0].variant): k for k, own in enumerate(shown)
    }  # the same models first everywhere
    told = sorted(
        board.advice, key=lambda a: place.get((a.lines[0].row.name, a.lines[0].row.variant), len(place))
    )
    for k, (name, chart) in enumerate(islice(choices(told), MANY if many else None)):
        _add(found, "choice", f"choice-{name}", chart, k < STATIC)
    for name, chart in _models(rows):
        _add(found, "models", name, chart, True)
    for name, chart in _paretos(rows):
        _add(found, "cost", name, chart, True)
    for k, own in enumerate(shown):
        for name, chart in heats(own):
            _add(found, "depth", f"depth-{name}", chart, k < STATIC)
    for chart in _drops(board.tables):
        _add(found, "drop", "drop", chart, True)
    for k, (name, chart) in enumerate(_trends(rows)):
        _add(found, "trend", f"trend-{name}", chart, k < STATIC)
    return list(found.values())


def _add(found: dict[str, Picture], group: str, name: str, chart: Chart, static: bool) -> None:
    name = re.sub(r"[^A-Za-z0-9._@=-]+", "_", name)[:80]
    while name in found:
        name += "-2"
    found[name] = Picture(name, group, chart, static)


def _models(rows: Sequence[Row]) -> Iterator[tuple[str, Chart]]:
    """Models as lines, under the full context: who holds out longest."""
    full = [r for r in rows if r.setting.get("kind") == "full"]
    if len({r.name for r in full}) > 1:
        for name, chart in curves(full, across=True):
            yield f"models-{name}", chart


# plot -> (cost, words)
_AXES = {
    "tokens": ("prompt", "prompt tokens an item"),
    "kv-stored": ("kv stored", "measured KV bytes stored an item"),
    "kv-read": ("kv read", "measured KV bytes read in a decode step"),
    "seconds": ("device", "device seconds an item"),
    "usd": ("usd", "USD an item"),
}


def _paretos(rows: Sequence[Row]) -> Iterator[tuple[str, Chart]]:
    """Score against prompt tokens, and against measured KV bytes an item, over the columns most rows
    share."""
    columns = suite_of(columns_of(rows))
    groups = [[c for c in columns if not c[2]], columns]
    for columns in groups:
        usable = [r for r in rows if columns and r.average(columns).usable]
        if len(usable) < 2:
            continue
        heading = "average of " + ", ".join(dict.fromkeys(title(c[0]) for c in columns))
        names = _short_labels(usable)
        for name, (_, label) in _AXES.items():
            dots = [d for r, own in zip(usable, names, strict=True) if (d := _dot(r, own, columns, name))]
            if len({d.x for d in dots}) > 1:
                yield f"pareto-{name}", pareto(f"Score ({heading}) against {label}", dots, x_label=label)
        return


def _short_labels(rows: Sequence[Row]) -> list[str]:
    """Names without what all rows share: of one model its settings, of several model and setting; with prompt and
    variant where these alone do not tell the rows apart."""
    own = telling(rows, False)
    if len({r.name for r in rows}) == 1:
        return own
    several = [f"{r.name} {r.setting['text']}" for r in rows]
    return several if len(set(several)) == len(rows) else [r.label for r in rows]


def _dot(row: Row, label: str, columns: Sequence[Column], name: str) -> Dot | None:
    """Cost and score of the same items; no dot where one of their cells has no cost."""
    x = macro(row, columns, _AXES[name][0])
    found = point(row.average(columns))
    if not x or found is None:
        return None
    kind = row.setting["text"] if len(row.setting["text"]) <= 24 else row.setting.get("kind") or "full"
    return Dot(label, kind, x, found.mean, found.low, found.high, not row.deployable)


def _drops(tables: Sequence[Table]) -> Iterator[Chart]:
    for table in tables:
        if table.name != "drop":
            continue
        at = table.columns.index("avg") if "avg" in table.columns else 0
        found = []
        labels = [line.labels for line in table.lines]
        several = [k for k in range(len(labels[0])) if len({own[k] for own in labels}) > 1] or [1]
        model = "" if 0 in several else f": {labels[0][0]}"
        for line in table.lines:
            c = line.cells[at]
            name = " ".join(line.labels[k] for k in several if line.labels[k])
            if c.value is not None and c.low is not None and c.high is not None:
                found.append(ForestRow(name, c.value, c.low, c.high))
            else:
                found.append(ForestRow(name, None, note=c.reason))
        if all(one.delta is None for one in found):
            continue  # the table has the reasons; thirty empty lines are no picture
        heading = f"Points lost under compression ({table.columns[at]}){model}"
        yield forest(heading, found, x_label="points, compressed - full context")


def _trends(rows: Sequence[Row]) -> Iterator[tuple[str, Chart]]:
    """Checkpoints of one training run: same name but for a step number, or one model in several revisions."""
    groups: dict[tuple[str, str, str], list[tuple[int, float, Row]]] = {}
    for row in rows:
        match = _STEP.match(row.checkpoint) or _STEP.match(row.model)
        family = row.model if _STEP.match(row.checkpoint) or not match else match[1]
        step = int(match[2]) if match else -1
        how = " ".join(p for p in (row.prompt, switches(row.heads[0])) if p)
        groups.setdefault((family, row.setting["text"], how), []).append((step, started(row.heads[0]), row))
    for (family, setting, how), members in sorted(groups.items()):
        members.sort(key=lambda m: (m[0], m[1], m[2].label))
        if len({m[2].name for m in members}) < 3:
            continue
        ordered = [m[2] for m in members]
        columns = [c for c in columns_of(ordered) if all(c in r.cells for r in ordered)]
        steps = [_step(row, ordered[0], columns) for row in ordered]
        what = short_column(columns[0]) if len(columns) == 1 else f"average of {len(columns)} cells"
        told = f"{setting} ({how})" if sum(key[:2] == (family, setting) for key in groups) > 1 else setting
        heading = f"{family} {told}: change since {steps[0].name} ({what})"
        yield f"{family}-{setting}-{how}", trend(heading, steps)


def _step(row: Row, first: Row, columns: Sequence[Column]) -> Step:
    match = _STEP.match(row.checkpoint) or _STEP.match(row.model)
    name = f"step {match[2]}" if match else row.checkpoint or row.model
    if row is first:
        return Step(name, 0.0)
    paired = difference(row, first, columns, axis="checkpoint") if columns else "nothing in common"
    if isinstance(paired, str):
        return Step(name, None)
    mean, low, high = paired.effect().in_points()
    return Step(
        name, mean, *((low, high) if math.isfinite(low) else (mean, mean))
    )  # of one cluster no interval
