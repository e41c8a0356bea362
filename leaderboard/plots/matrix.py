"""What to use: settings x lengths, the score in every cell, coloured by the difference to the full context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .chart import Chart, Sheet, altair, bare, clean, filled, short, unchecked
from .heat import colour, ink
from .scales import fullest, tenth

ROWS = 12
BELOW = "● best setting to deploy; blue gains on the full context, orange loses"
_CELL = (74, 30)


@dataclass(frozen=True)
class Choice:
    """One cell, in score x 100. `delta` is the paired difference to the full context with its interval, None
    for the full context itself and where the two cannot be compared. `best`: the best deployable setting of
    its column."""

    setting: str
    column: str
    mean: float | None
    delta: tuple[float, float, float] | None = None
    n: int = 0
    best: bool = False
    reason: str = ""
    reference: bool = False


@unchecked
def matrix(title: str, choices: Sequence[Choice]) -> Chart:
    """Rows are settings, columns lengths; blue gains on the full context, orange loses, a ring marks the best."""
    rows = list(dict.fromkeys(c.setting for c in choices))
    if len(rows) > ROWS:
        title = f"{title} ({ROWS} of {len(rows)} settings)"
        rows = _fullest(rows, choices)
    columns = list(dict.fromkeys(clean(c.column) for c in choices))
    kept = [c for c in choices if c.setting in rows]
    span = max([10.0, *(abs(c.delta[0]) for c in kept if c.delta)])
    names = {s: short(clean(s), 40) for s in rows}
    data = []
    for c in kept:
        fill = colour(c.delta[0], span) if c.delta and not c.reference else None
        shown = "–" if c.mean is None else tenth(c.mean) + (" ●" if c.best else "")
        against = (
            "" if c.delta is None else "; to full {} [{}, {}]".format(*(tenth(v, sign=True) for v in c.delta))
        )
        tip = c.reason if c.mean is None else f"{tenth(c.mean)}{against}, N={c.n}"
        data.append(
            {
                "setting": names[c.setting],
                "column": clean(c.column),
                "text": shown,
                "fill": fill,
                "ink": ink(fill) if fill else None,
                "tip": clean(f"{c.setting}, {c.column}: {tip}"),
            }
        )
    words = "; ".join(f"{d['tip']}" for d in data)
    frame = _drawn(tuple(columns), tuple(names.values()))
    return Chart(clean(title), words, filled(frame, {"d0": data}, title, BELOW))


def _fullest(rows: Sequence[str], choices: Sequence[Choice]) -> list[str]:
    """As many as fit, in their order: the full context and a few reference lines, which the others are read against,
    then those with the most scores; other reference lines last."""
    grey = {c.setting for c in choices if c.reference}
    scores = Counter(c.setting for c in choices if c.mean is not None)
    references = [i for i, row in enumerate(rows) if row in grey]
    return [rows[i] for i in fullest([scores[row] for row in rows], references, {0}, ROWS)]


@lru_cache(maxsize=64)
def _drawn(columns: tuple[str, ...], settings: tuple[str, ...]) -> dict[str, Any]:
    """The layers over the data set d0: models under the same settings share them."""
    alt, sheet = altair(), Sheet()
    x = alt.X(
        "column:N",
        sort=list(columns),
        scale=alt.Scale(padding=0.03),
        axis=alt.Axis(title=None, labelAngle=0, domain=False, ticks=False, orient="top"),
    )
    y = alt.Y("setting:N", sort=list(settings), scale=alt.Scale(padding=0.03), axis=alt.Axis(title=None))
    base = sheet([])
    full, plain = base.transform_filter("datum.fill !== null"), base.transform_filter("datum.fill === null")
    layers = [
        full.mark_rect().encode(x=x, y=y, color=alt.Color("fill:N", scale=None), tooltip="tip:N"),
        full.mark_text(fontSize=12).encode(
            x=x, y=y, text="text:N", color=alt.Color("ink:N", scale=None), tooltip="tip:N"
        ),
        plain.mark_text(style="ink", fontSize=12).encode(x=x, y=y, text="text:N", tooltip="tip:N"),
    ]
    size = {"width": _CELL[0] * len(columns), "height": _CELL[1] * len(settings)}
    return bare(alt.layer(*layers).properties(**size))
