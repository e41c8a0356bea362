"""Score against what it costs: measured KV bytes or prompt tokens, so that RAG and compression share one
picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..text.printed import figures, printed
from .chart import Chart, Sheet, altair, clean, short, unchecked
from .scales import labelled, nice_ticks, si, spread, tenth, two
from .theme import shapes

LABELS = 12  # of the front, which is what the picture is about; the rest has colour and tooltip
_WIDTH, _HEIGHT = 420, 300


@dataclass(frozen=True)
class Dot:
    """One row of the board. `x` is a cost (> 0, lower is better), scores x 100; `kind` chooses marker and
    colour. A `reference` (no setting that anybody would serve) is grey and never on the front."""

    name: str
    kind: str
    x: float
    mean: float
    low: float
    high: float
    reference: bool = False


def front(dots: Sequence[Dot]) -> list[Dot]:
    """Dots that no other dot beats in both cost and score, by cost; of dots that print alike the first by
    name."""
    best, found = -math.inf, []
    for dot in sorted(dots, key=lambda d: (figures(d.x), -printed(d.mean), d.name)):
        if not dot.reference and printed(dot.mean) > best:
            best = printed(dot.mean)
            found.append(dot)
    return found


@unchecked
def pareto(title: str, dots: Sequence[Dot], *, x_label: str, y_label: str = "score x 100") -> Chart:
    """x is logarithmic; dots on the front are large, joined and named, the others small; up to twelve dots
    are all named."""
    alt, sheet = altair(), Sheet()
    dots = sorted(dots, key=lambda d: d.name)  # labels of dots at one height stand in this order
    best = front(dots)
    named = dots if len(dots) <= LABELS else best[-LABELS:]
    kinds = list(dict.fromkeys(clean(d.kind) for d in sorted(dots, key=lambda d: d.kind) if not d.reference))
    lo, hi = math.log10(min(d.x for d in dots)), math.log10(max(d.x for d in dots))
    pad = max(0.12, 0.06 * (hi - lo))
    lo, hi = two(lo - pad), two(hi + pad)
    ticks = [t for t in nice_ticks(0, min(100.0, max(d.high for d in dots))) if t <= 100] or [0, 100]
    top, gap = ticks[-1], 16 * ticks[-1] / _HEIGHT
    names = dict(
        zip(
            map(id, named),
            spread([printed(d.mean) for d in named], gap, 0, max(top, gap * len(named))),
            strict=True,
        )
    )
    data = [_row(d, names.get(id(d)), d in best) for d in dots]
    x = alt.X(
        "x:Q",
        scale=alt.Scale(domain=[lo, hi], nice=False),
        axis=alt.Axis(
            title=f"{clean(x_label)}, log scale, less is better", grid=True, **labelled(_decades(lo, hi))
        ),
    )
    y = alt.Y("y:Q", scale=alt.Scale(domain=[0, top]), axis=alt.Axis(title=clean(y_label), values=ticks))
    pick = alt.selection_point(name="pick", fields=["kind"], bind="legend")
    fade = alt.condition(pick, alt.value(1), alt.value(0.1))
    legend = alt.Legend(title=None, orient="bottom", columns=4) if kinds else None
    colour = alt.Color("kind:N", scale=alt.Scale(domain=kinds), legend=legend)
    shape = alt.Shape(
        "kind:N",
        legend=legend,
        scale=alt.Scale(domain=kinds, range=shapes(len(kinds))),
    )

    def rows(keep: Any) -> Any:
        return sheet([r for r in data if keep(r)])

    usable, grey = rows(lambda r: not r["reference"]), rows(lambda r: r["reference"])
    edge = alt.X2("edge:Q")
    level = [r["y"] for r in data if r["kind"] == "full"]  # a line each is clutter where there are many
    full = sheet([{"y": y} for y in level] if len(level) <= 2 else [])
    layers = [
        full.mark_rule(style="soft", strokeDash=[5, 4], opacity=0.6).encode(y=y),
        rows(lambda r: r["front"])
        .mark_line(style="soft", strokeWidth=1.2, interpolate="step-after")
        .encode(x=x, y=y),
        rows(lambda r: r["label"] is not None)
        .transform_calculate(edge=str(hi))
        .mark_rule(style="grid")
        .encode(x=x, y=y, x2=edge, y2="label:Q"),
        usable.mark_rule(strokeWidth=1.1).encode(
            x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour, opacity=fade
        ),
        usable.mark_point(filled=True, opacity=1)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=shape,
            opacity=fade,
            tooltip="tip:N",
            size=alt.condition("datum.front", alt.value(90), alt.value(34)),
        )
        .add_params(pick),
        grey.mark_rule(style="soft", strokeWidth=1).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        grey.mark_point(style="soft", filled=True, size=24, opacity=1).encode(x=x, y=y, tooltip="tip:N"),
    ]
    for style, reference in (("ink", False), ("soft", True)):
        label = rows(lambda r, ref=reference: r["label"] is not None and r["reference"] is ref)
        layers.append(
            label.mark_text(style=style, align="left", dx=8, fontSize=11, baseline="middle").encode(
                x=alt.value(alt.ExprRef("width")), y=alt.Y("label:Q"), text="text:N"
            )
        )
    chart = alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)
    words = "; ".join(f"{d.name}: {tenth(d.mean)} at {si(d.x)}" for d in dots)
    return Chart(clean(title), words, sheet.spec(chart, title))


def _row(dot: Dot, label: float | None, on_front: bool) -> dict[str, Any]:
    tip = f"{dot.name}: {tenth(dot.mean)} [{tenth(dot.low)}, {tenth(dot.high)}] at {si(dot.x)}"
    return {
        "x": round(math.log10(dot.x), 4),
        "y": two(dot.mean),
        "low": two(dot.low),
        "high": two(min(dot.high, 100)),
        "kind": clean(dot.kind),
        "tip": clean(tip),
        "text": short(clean(dot.name), 42),
        "front": on_front,
        "label": None if label is None else two(label),
        "reference": dot.reference,
    }


def _decades(lo: float, hi: float) -> dict[float, str]:
    """Ticks 1, 2, 5 per decade, fewer over a wide range."""
    steps = (1, 2, 5) if hi - lo < 2.5 else (1,)
    found = [m * 10.0**k for k in range(math.floor(lo), math.ceil(hi) + 1) for m in steps]
    return {round(math.log10(x), 4): si(x) for x in found if lo <= math.log10(x) <= hi}
