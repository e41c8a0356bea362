"""Data of the pictures over context length: settings of one model as lines, and as a matrix of what to use."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from ..ledgers.summary import tokens
from ..plots import Chart, Choice, Line, Point, curve, matrix
from ..text.names import chance, title
from ..text.printed import printed
from .advice import ALL, Advice, Use
from .cells import Cell, Column
from .rows import Row, columns_of, lengths_of
from .views.settings import settings_order

MODELS = 40  # of which a page can hold pictures


def models(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each model (checkpoint, prompt and variant alike), those with most settings first, then the
    best; at most MODELS."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.name, row.variant), []).append(row)
    order = sorted(
        groups.values(), key=lambda own: (-min(sum(r.deployable for r in own), 4), -_best(own), own[0].label)
    )
    return [sorted(own, key=lambda r: (settings_order(r), r.label)) for own in order[:MODELS]]


def _best(own: Sequence[Row]) -> float:
    """The best printed average of a deployable setting over what this model has."""
    found = [row.average(columns_of([row])).effect for row in own if row.deployable]
    return max((printed(100 * e.mean) for e in found if e is not None), default=-1.0)


def curves(
    rows: Sequence[Row], *, across: bool = False, each_dataset: bool = True
) -> Iterator[tuple[str, Chart]]:
    """One chart a benchmark with lengths: the average over its datasets. Lines are the settings of one model;
    or, `across`, the models under one setting. A benchmark of several datasets that has no average (a dataset
    or a length is missing) gets a chart a dataset."""
    columns = [c for c in columns_of(rows) if c[2]]
    for benchmark in dict.fromkeys(c[0] for c in columns):
        own = [c for c in columns if c[0] == benchmark]
        datasets = list(dict.fromkeys(c[1] for c in own))
        average: list[list[str]] = [datasets] if len(datasets) > 1 else []
        each = [[d] for d in datasets]
        for kept in [*average, *each]:
            of_kept = [c for c in own if c[1] in kept]
            by = {length: [c for c in of_kept if c[2] == length] for length in lengths_of(of_kept)}
            lines = _lines(rows, by, across)
            if len(by) < 2 or not lines:
                continue
            what = "" if len(kept) > 1 or kept == ["rag"] else f" {kept[0]}"
            who = f"full context, {len(lines)} models" if across else rows[0].name
            heading = f"{title(benchmark)}{what} by context length: {who}"
            slug = "-".join(
                [benchmark, "average" if len(kept) > 1 else kept[0], *([] if across else [_slug(rows[0])])]
            )
            guess = chance(benchmark, kept[0] if len(kept) == 1 else "")
            yield slug, curve(heading, lines, chance=guess)
            if (across or not each_dataset) and len(kept) > 1:
                break


def _slug(row: Row) -> str:
    return "-".join(p for p in (row.name, row.variant) if p)


def _lines(rows: Sequence[Row], by: dict[str, list[Column]], across: bool) -> list[Line]:
    names = telling(rows, across)
    lines = [
        Line(name, {tokens(x): point(row.average(columns)) for x, columns in by.items()}, not row.deployable)
        for row, name in zip(rows, names, strict=True)
    ]
    lines = [line for line in lines if any(line.points.values())]
    return sorted(lines, key=lambda line: (-printed(_height(line)), line.name)) if across else lines


def telling(rows: Sequence[Row], across: bool) -> list[str]:
    """What tells these rows apart, and no more."""
    short = [row.name if across else row.setting["text"] for row in rows]
    more = [f"{s}, {row.prompt}" for s, row in zip(short, rows, strict=True)]
    full = [f"{m}, {row.variant or row.runs[0]}" for m, row in zip(more, rows, strict=True)]
    counts = Counter(short), Counter(more)
    return [
        s if counts[0][s] == 1 else m if counts[1][m] == 1 else f
        for s, m, f in zip(short, more, full, strict=True)
    ]


def _height(line: Line) -> float:
    found = [p.mean for p in line.points.values() if p]
    return math.fsum(found) / len(found)


def point(cell: Cell) -> Point | None:
    """A cell for a chart; None where it may not be averaged or ranked."""
    if not cell.usable or cell.effect is None:
        return None
    mean, low, high = cell.effect.in_points()
    return Point(mean, *((low, high) if math.isfinite(low) else (mean, mean)), cell.effect.n)


def choices(found: Sequence[Advice]) -> Iterator[tuple[str, Chart]]:
    """Settings x lengths of each model and benchmark, as the tables of what to use have them."""
    for one in found:
        columns = [b.name for b in one.bands]
        cells = []
        for line, name in zip(one.lines, telling([line.row for line in one.lines], False), strict=True):
            uses = [*line.uses, *([line.whole] if len(columns) > 1 else [])]
            for column, use in zip([*columns, *([ALL] if len(columns) > 1 else [])], uses, strict=True):
                cells.append(_choice(name, column, use, line.reference))
        slug = "-".join(p for p in (one.benchmark, one.model, one.variant, one.prompt) if p)
        yield slug, matrix(f"What to use: {one.heading}", cells)


def _choice(name: str, column: str, use: Use, reference: bool) -> Choice:
    if use.score is None:
        return Choice(name, column, None, reason=use.reason or "not ranked", reference=reference)
    delta = use.delta.in_points() if use.delta is not None and math.isfinite(use.delta.se) else None
    return Choice(
        name, column, use.score.in_points()[0], delta, use.score.n, use.mark == "best", "", reference
    )
