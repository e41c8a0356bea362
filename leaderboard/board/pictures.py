"""Which plots a board gets, and their data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from ..ledgers.summary import tokens
from ..plots import Dot, Line, Panel, Point, Step, curve, forest, heat, pareto, trend
from ..plots import Row as ForestRow
from ..text.names import chance, title
from ..text.printed import printed
from .cells import Bounds, Cell, Column, in_bin, short_column
from .costs import macro
from .depths import depth_bins
from .join import started
from .rows import Row, columns_of, difference, suite_of
from .tables import Table

LINES = 8  # more lines than this cannot be told apart
_STEP = re.compile(r"(.*?)[-_/@]?(?:checkpoint|global_step|step)[-_]?(\d+)$")


def plots(rows: Sequence[Row], tables: Sequence[Table]) -> dict[str, tuple[str, str]]:
    """File name -> (caption, SVG)."""
    found: dict[str, tuple[str, str]] = {}
    for maker in (_curves, _heats, _paretos, _drops, _trends):
        for name, caption, svg in maker(rows, tables):
            found[f"{name}.svg"] = (caption, svg)
    return found


Made = Iterator[tuple[str, str, str]]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._@=-]+", "_", text)[:60]


def _curves(rows: Sequence[Row], tables: Sequence[Table]) -> Made:
    columns = [c for c in columns_of(rows) if c[2]]
    for benchmark in dict.fromkeys(c[0] for c in columns):
        own = [c for c in columns if c[0] == benchmark]
        datasets = list(dict.fromkeys(c[1] for c in own))
        for dataset in [None, *datasets] if len(datasets) > 1 else datasets:
            used = [c for c in own if dataset in (None, c[1])]
            by = {length: [c for c in used if c[2] == length] for length in dict.fromkeys(c[2] for c in used)}
            lines = [_line(row, by) for row in rows]
            lines = [line for line in lines if any(line.points.values())]
            if len(by) < 2 or not lines:
                continue
            lines.sort(key=lambda line: (-printed(_height(line)), line.name))
            name = "average over datasets" if dataset is None else "" if dataset == "rag" else dataset
            more = f", best {LINES} of {len(lines)} rows" if len(lines) > LINES else ""
            heading = f"{title(benchmark)} {name}".strip() + f" by context length{more}"
            svg = curve(heading, lines[:LINES], chance=chance(benchmark, dataset or ""))
            yield f"length-{_slug(benchmark)}-{_slug(dataset or 'average')}", heading, svg


def _line(row: Row, by: dict[str, list[Column]]) -> Line:
    return Line(row.label, {tokens(length): _point(row.average(columns)) for length, columns in by.items()})


def _point(cell: Cell) -> Point | None:
    if not cell.usable or cell.effect is None:
        return None
    return Point(*cell.effect.in_points(), cell.effect.n)


def _height(line: Line) -> float:
    found = [p.mean for p in line.points.values() if p]
    return math.fsum(found) / len(found)


def _heats(rows: Sequence[Row], tables: Sequence[Table]) -> Made:
    """Per model the full context beside its first other setting, and their difference; else the full context
    alone."""
    made = 0
    for row in rows:
        if row.setting.get("kind") != "full" or made >= LINES:
            continue
        bins = depth_bins([row], [c for c in columns_of([row]) if c[2] and row.cells[c].usable])
        if isinstance(bins, str):
            continue
        columns, levels = bins.columns, bins.bounds
        lengths = list(dict.fromkeys(c[2] for c in columns))
        grid, n = _matrix(row, columns, levels, lengths)
        panels = [Panel(row.setting["text"], grid, n=n)]
        for other in rows:
            if (
                other.key[:2] == row.key[:2]
                and other.setting.get("kind") in ("kv", "rag")
                and len(panels) == 1
            ):
                if isinstance(difference(other, row, columns), str):
                    continue
                theirs, n = _matrix(other, columns, levels, lengths)
                panels.append(Panel(other.setting["text"], theirs, n=n))
                gap = [
                    [_minus(a, b) for a, b in zip(x, y, strict=True)]
                    for x, y in zip(theirs, grid, strict=True)
                ]
                panels.append(Panel(f"{other.setting['text']} - full", gap, difference=True, n=n))
        made += 1
        heading = f"{row.name} {row.prompt}: score by depth and length".replace(" :", ":")
        yield (
            f"depth-{_slug(row.name)}-{_slug(row.prompt)}",
            heading,
            heat(heading, bins.names, lengths, panels),
        )


def _matrix(
    row: Row, columns: Sequence[Column], levels: Sequence[Bounds], lengths: Sequence[str]
) -> tuple[list[list[float | None]], list[list[int]]]:
    """Mean score x 100 and N by depth (rows) and length (columns), datasets with that depth weighted
    equally."""
    grid: list[list[float | None]] = []
    counts: list[list[int]] = []
    for d in levels:
        grid.append([])
        counts.append([])
        for length in lengths:
            parts = [row.cells[c].scores for c in columns if c[2] == length]
            found = [s.score[in_bin(s.at, d)] for s in parts if s is not None]
            found = [f for f in found if len(f)]
            grid[-1].append(100 * float(np.mean([f.mean() for f in found])) if found else None)
            counts[-1].append(sum(map(len, found)))
    return grid, counts


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


# plot -> (cost, words)
_AXES = {
    "tokens": ("prompt", "prompt tokens an item"),
    "kv-stored": ("kv stored", "measured KV bytes stored an item"),
    "kv-read": ("kv read", "measured KV bytes read in a decode step"),
    "seconds": ("device", "device seconds an item"),
    "usd": ("usd", "USD an item"),
}


def _paretos(rows: Sequence[Row], tables: Sequence[Table]) -> Made:
    """Score against prompt tokens, and against measured KV bytes an item, over the columns most rows
    share."""
    columns = suite_of(columns_of(rows))
    groups = [[c for c in columns if not c[2]], columns]
    for columns in groups:
        usable = [r for r in rows if columns and r.deployable and r.average(columns).usable]
        if len(usable) < 2:
            continue
        heading = "average of " + ", ".join(dict.fromkeys(title(c[0]) for c in columns))
        for name, (_, label) in _AXES.items():
            dots = [d for r in usable if (d := _dot(r, columns, name))]
            if len({d.x for d in dots}) > 1:
                caption = f"Score ({heading}) against {label}"
                yield f"pareto-{name}", caption, pareto(caption, dots, x_label=label)
        return


def _dot(row: Row, columns: Sequence[Column], name: str) -> Dot | None:
    """Cost and score of the same items; no dot where one of their cells has no cost."""
    x = macro(row, columns, _AXES[name][0])
    point = _point(row.average(columns))
    if not x or point is None:
        return None
    return Dot(row.label, row.setting.get("kind") or "full", x, point.mean, point.low, point.high)


def _drops(rows: Sequence[Row], tables: Sequence[Table]) -> Made:
    for table in tables:
        if table.name != "drop":
            continue
        at = table.columns.index("avg") if "avg" in table.columns else 0
        found = []
        for line in table.lines:
            c = line.cells[at]
            name = " ".join(label for label in line.labels if label)
            if c.value is not None and c.low is not None and c.high is not None:
                found.append(ForestRow(name, c.value, c.low, c.high))
            else:
                found.append(ForestRow(name, None, note=c.reason))
        heading = f"Points lost under compression ({table.columns[at]})"
        yield "drop", heading, forest(heading, found, x_label="points, compressed - full context")


def _trends(rows: Sequence[Row], tables: Sequence[Table]) -> Made:
    """Checkpoints of one training run: same name but for a step number, or one model in several revisions."""
    groups: dict[tuple[str, str, str], list[tuple[int, float, Row]]] = {}
    for row in rows:
        match = _STEP.match(row.checkpoint) or _STEP.match(row.model)
        family = row.model if _STEP.match(row.checkpoint) or not match else match[1]
        step = int(match[2]) if match else -1
        groups.setdefault((family, row.setting["text"], row.prompt), []).append(
            (step, started(row.heads[0]), row)
        )
    for (family, setting, prompt), members in sorted(groups.items()):
        members.sort(key=lambda m: (m[0], m[1], m[2].label))
        if len({m[2].name for m in members}) < 3:
            continue
        ordered = [m[2] for m in members]
        columns = [c for c in columns_of(ordered) if all(c in r.cells for r in ordered)]
        steps = [_step(row, ordered[0], columns) for row in ordered]
        what = short_column(columns[0]) if len(columns) == 1 else f"average of {len(columns)} cells"
        heading = f"{family} {setting}: change since {steps[0].name} ({what})"
        yield f"trend-{_slug(family)}-{_slug(setting)}-{_slug(prompt)}", heading, trend(heading, steps)


def _step(row: Row, first: Row, columns: Sequence[Column]) -> Step:
    match = _STEP.match(row.checkpoint) or _STEP.match(row.model)
    name = f"step {match[2]}" if match else row.checkpoint or row.model
    if row is first:
        return Step(name, 0.0)
    paired = difference(row, first, columns, axis="checkpoint") if columns else "nothing in common"
    if isinstance(paired, str):
        return Step(name, None)
    effect = paired[0].effect(paired[1] - paired[2])
    return Step(name, *effect.in_points())
