"""Score against context length: one line a setting, 95 % intervals, gaps drawn as gaps, names at the line ends."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..text.printed import printed
from .chart import Chart, Sheet, altair, bare, clean, filled, short, unchecked
from .scales import count, fullest, labelled, nice_ticks, spread, tenth, two
from .theme import shapes

WHISKERS = 8  # more intervals than this hide each other: the tables and the tooltips have them
LABELS = 12  # more names than this cannot be read beside a plot
_HEIGHT, _GAP = 280, 16.0


@dataclass(frozen=True)
class Point:
    """A mean with its interval, in score x 100; `n` items."""

    mean: float
    low: float
    high: float
    n: int = 0


@dataclass(frozen=True)
class Line:
    """A named line; `points` by context length in tokens, None where a cell is empty. A `reference` (no
    setting that anybody would serve) is drawn thin, dashed and grey."""

    name: str
    points: dict[int, Point | None]
    reference: bool = False


def _fullest(lines: Sequence[Line]) -> list[Line]:
    """As many as can be named, in their order: the first, some references and the highest at each length, then those
    with the most points; other references last."""
    points = [sum(p is not None for p in line.points.values()) for line in lines]
    references = [i for i, line in enumerate(lines) if line.reference]
    highest = set()
    for x in {x for line in lines for x in line.points}:
        means = [
            (p.mean, -i)
            for i, o in enumerate(lines)
            if not o.reference and (p := o.points.get(x)) is not None
        ]
        if means:
            highest.add(-max(means)[1])
    return [lines[i] for i in fullest(points, references, {0, *highest}, LABELS)]


@unchecked
def curve(
    title: str, lines: Sequence[Line], *, chance: float | None = None, y_label: str = "score x 100"
) -> Chart:
    """x is log2 of the length, y starts at 0. Two lines or fewer get bands, more get offset whiskers."""
    if len(lines) > LABELS:
        title = f"{title} ({LABELS} of {len(lines)})"
        lines = _fullest(lines)
    xs = sorted({x for line in lines for x in line.points})
    top = max([p.high for line in lines for p in line.points.values() if p] + [chance or 0, 1])
    ticks = [t for t in nice_ticks(0, min(top, 100.0)) if t <= 100]
    width, height = max(64 * len(xs), 320), max(_HEIGHT, int(_GAP) * len(lines) + 20)
    domain = (two(math.log2(xs[0] or 1) - 0.35), two(math.log2(xs[-1] or 1) + 0.35)) if xs else (0.0, 1.0)
    data = _rows(lines, xs, (domain[1] - domain[0]) / width)
    ends = _ends(lines, data, ticks[-1], height)
    stands = Counter(r["run"] for r in data)
    many = len(lines) > WHISKERS
    frame = _Frame(
        (width, height),
        domain,
        tuple(xs),
        tuple(ticks),
        y_label,
        tuple(clean(line.name) for line in lines if not line.reference),
        chance is not None,
        bands=len(lines) <= 2,
        whiskers=bool(stands) and not many,
    )
    sets = [
        [r for r in data if not r["reference"]],
        [r for r in data if not r["reference"] and stands[r["run"]] == 1],
        [r for r in data if r["reference"]],
        *([] if chance is None else [[{"mean": chance, "text": f"chance {chance:g}"}]]),
        [e for e in ends if not e["reference"]],
        [e for e in ends if e["reference"]],
    ]
    below = "intervals: in the tables and tooltips" if many else ""
    named = {f"d{k}": rows for k, rows in enumerate(sets)}
    return Chart(clean(title), _words(lines), filled(_drawn(frame), named, title, below))


@dataclass(frozen=True)
class _Frame:
    """All of a chart but its data and title; the models of a board share a few of them."""

    size: tuple[int, int]
    domain: tuple[float, float]
    xs: tuple[int, ...]
    ticks: tuple[float, ...]
    y_label: str
    names: tuple[str, ...]
    chance: bool
    bands: bool
    whiskers: bool


@lru_cache(maxsize=64)
def _drawn(frame: _Frame) -> dict[str, Any]:
    """The layers of a frame, in the data sets d0, d1 ... that `curve` fills: composing them with Altair takes
    far longer than anything else about a chart."""
    alt, sheet = altair(), Sheet()
    xs, ticks, names = frame.xs, list(frame.ticks), list(frame.names)
    x = alt.X(
        "x:Q",
        scale=alt.Scale(domain=list(frame.domain), nice=False),
        axis=alt.Axis(
            title="context length (tokens)", **labelled({two(math.log2(v or 1)): count(v) for v in xs})
        ),
    )
    y = alt.Y(
        "mean:Q",
        scale=alt.Scale(domain=[0, ticks[-1]]),
        axis=alt.Axis(title=clean(frame.y_label), values=ticks),
    )
    pick = alt.selection_point(name="pick", fields=["name"], on="click", clear="dblclick")
    fade = alt.condition(pick, alt.value(1), alt.value(0.12))
    colour = alt.Color("name:N", legend=None, scale=alt.Scale(domain=names))
    shape = alt.Shape(
        "name:N",
        legend=None,
        scale=alt.Scale(domain=names, range=shapes(len(names))),
    )
    main, alone, grey = sheet([]), sheet([]), sheet([])
    lows, highs = alt.Y("low:Q"), alt.Y2("high:Q")
    layers: list[Any] = []
    if frame.chance:
        at = sheet([])
        layers += [
            at.mark_rule(style="soft", strokeDash=[5, 4]).encode(y=y),
            at.mark_text(style="soft", align="left", dx=4, dy=-6, fontSize=11).encode(
                y=y, x=alt.value(0), text="text:N"
            ),
        ]
    layers.append(
        grey.mark_line(style="soft", strokeWidth=1.3, strokeDash=[2, 3]).encode(
            x=x, y=y, detail="run:N", opacity=fade
        )
    )
    if frame.bands:
        layers.append(
            main.mark_area(opacity=0.18).encode(x=x, y=lows, y2=highs, color=colour, detail="run:N")
        )
    if frame.whiskers:
        whiskers = alone if frame.bands else main  # a band needs two points
        layers.append(
            whiskers.mark_rule(strokeWidth=1.2).encode(x=x, y=lows, y2=highs, color=colour, opacity=fade)
        )
    layers.append(main.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, detail="run:N", opacity=fade))
    layers.append(
        main.mark_point(filled=True, size=52, opacity=1).encode(
            x=x, y=y, color=colour, shape=shape, opacity=fade, tooltip="tip:N"
        )
    )
    layers.append(
        grey.mark_point(style="soft", filled=True, size=14, opacity=1).encode(
            x=x, y=y, opacity=fade, tooltip="tip:N"
        )
    )
    for reference in (False, True):
        label = sheet([])
        where = {
            "x": alt.value(alt.ExprRef("width")),
            "y": alt.Y("y:Q", scale=alt.Scale(domain=[0, ticks[-1]])),
        }
        if not reference:
            layers.append(
                label.mark_point(filled=True, size=52, xOffset=10, opacity=1).encode(
                    **where, color=colour, shape=shape
                )
            )
        text = label.mark_text(
            style="soft" if reference else "ink",
            align="left",
            dx=20 if not reference else 6,
            baseline="middle",
            cursor="pointer",
            fontSize=12,
        )
        text = text.encode(**where, text="text:N", opacity=fade)
        layers.append(text if reference else text.add_params(pick))
    width, height = frame.size
    return bare(alt.layer(*layers).properties(width=width, height=height).resolve_scale(shape="shared"))


def _rows(lines: Sequence[Line], xs: Sequence[int], pixel: float) -> list[dict[str, Any]]:
    """One row a point. `run` names a stretch without a gap: a length that no point of this line has is a gap
    like an empty cell. Lines stand a few pixels beside each other, so that whiskers do not hide whiskers."""
    found: list[dict[str, Any]] = []
    drawn = [i for i, line in enumerate(lines) if not line.reference]
    step = min(5.0, 24 / max(len(drawn), 1)) if len(lines) > 2 else 0.0
    for i, line in enumerate(lines):
        shift = (drawn.index(i) - (len(drawn) - 1) / 2) * step * pixel if i in drawn else 0.0
        run = 0
        for x in xs:
            p = line.points.get(x)
            if p is None:
                run += 1
                continue
            tip = f"{line.name}, {count(x)}: {tenth(p.mean)} [{tenth(p.low)}, {tenth(p.high)}], N={p.n}"
            found.append(
                {
                    "name": clean(line.name),
                    "reference": line.reference,
                    "run": f"{i}.{run}",
                    "x": round(math.log2(x or 1) + shift, 4),
                    "mean": two(p.mean),
                    "low": two(p.low),
                    "high": two(min(p.high, 100.0)),
                    "tip": clean(tip),
                }
            )
    return found


def _ends(
    lines: Sequence[Line], data: Sequence[dict[str, Any]], top: float, height: int
) -> list[dict[str, Any]]:
    """Where each name stands: at the height of its last point, and apart from the others."""
    last = {}
    for row in data:
        last[row["name"]] = row["mean"]
    wanted = [printed(last.get(clean(line.name), 0.0)) for line in lines]
    gap = _GAP * top / height
    places = spread(wanted, gap, 0.0, max(top, gap * len(lines)))
    return [
        {
            "name": clean(line.name),
            "text": short(clean(line.name), 40),
            "y": two(y),
            "reference": line.reference,
        }
        for line, y in zip(lines, places, strict=True)
    ]


def _words(lines: Sequence[Line]) -> str:
    """The same content as text."""
    rows = []
    for line in lines:
        cells = [
            f"{count(x)} {tenth(p.mean)}" if p else f"{count(x)} no value"
            for x, p in sorted(line.points.items())
        ]
        rows.append(f"{line.name}: {', '.join(cells)}")
    return "; ".join(rows)
