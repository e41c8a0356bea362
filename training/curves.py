"""Training curves as SVG, drawn by hand: no plotting library, the same bytes on every machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

Point = tuple[float, float]
COLOURS = ("#0b6fb8", "#c8501e", "#2f8f4e", "#8a4fb0", "#a07800", "#666666")
_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 250, 56, 150, 30, 38
# One panel a line: title, and the logged columns it shows (those that exist).
PANELS = (
    ("reward", ("reward", "rewards/*/mean")),
    ("length of completions, tokens", ("completions/mean_length", "completions/max_length")),
    ("share cut at the length limit", ("completions/clipped_ratio",)),
    ("KL to the base model", ("kl",)),
    ("groups without a gradient", ("frac_reward_zero_std",)),
    ("loss", ("loss",)),
)


def chart(
    title: str,
    series: Mapping[str, Sequence[Point]],
    *,
    x: str = "step",
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
    y_range: tuple[float, float] | None = None,
    top: int = 0,
) -> str:
    """One line chart as SVG elements. `bands` are (x, low, high) per series, shaded."""
    bands = bands or {}
    points = [p for line in series.values() for p in line]
    if not points:
        return ""
    xs = [p[0] for p in points]
    ys = [p[1] for p in points] + [v for band in bands.values() for _, low, high in band for v in (low, high)]
    low, high = y_range or (min(ys), max(ys))
    high = high if high > low else low + 1.0
    left, right = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1

    def at(point: tuple[float, float]) -> str:
        px = _LEFT + (point[0] - left) / (right - left) * (_W - _LEFT - _RIGHT)
        py = top + _TOP + (high - point[1]) / (high - low) * (_H - _TOP - _BOTTOM)
        return f"{px:.1f},{py:.1f}"

    out = [f'<text x="{_LEFT}" y="{top + 18}" class="t">{escape(title)}</text>']
    for value in _ticks(low, high):
        px, py = at((left, value)).split(",")
        out.append(f'<path d="M{px},{py}H{_W - _RIGHT}" class="g"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{float(py) + 4:.1f}" class="y">{value:.4g}</text>')
    for value in _ticks(left, right):
        px, py = at((value, low)).split(",")
        out.append(f'<text x="{px}" y="{float(py) + 16:.1f}" class="x">{value:.6g}</text>')
    middle = (_LEFT + _W - _RIGHT) / 2
    out.append(f'<text x="{middle:.0f}" y="{top + _H - 6}" class="x">{escape(x)}</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        if band := bands.get(name):
            edge = [(b[0], b[2]) for b in band] + [(b[0], b[1]) for b in reversed(band)]
            out.append(f'<polygon points="{" ".join(map(at, edge))}" fill="{colour}" opacity="0.18"/>')
        out.append(
            f'<polyline points="{" ".join(map(at, line))}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        )
        row = top + _TOP + 14 * number
        out.append(f'<path d="M{_W - _RIGHT + 10},{row}h16" stroke="{colour}" stroke-width="3"/>')
        out.append(f'<text x="{_W - _RIGHT + 30}" y="{row + 4}" class="l">{escape(name)}</text>')
    return "\n".join(out)


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from `low` to `high`."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.99)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def page(charts: Sequence[str]) -> str:
    """Charts made with `top` = 0, `HEIGHT`, 2 x `HEIGHT` ... as one SVG document."""
    style = (
        "<style>text{font:11px sans-serif;fill:#333}.t{font-size:13px;font-weight:bold}.y{text-anchor:end}"
        ".x{text-anchor:middle}.g{stroke:#ddd}.l{font-size:10px}</style>"
    )
    height = _H * max(1, len(charts))
    body = "\n".join(charts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_W} {height}" width="{_W}" '
        f'height="{height}">{style}'
        f'<rect width="{_W}" height="{height}" fill="#fff"/>\n{body}\n</svg>\n'
    )


HEIGHT = _H


def history(run: Path) -> list[dict[str, Any]]:
    """Logged steps of a run (metrics.jsonl), one row a step. What a resumed run logs again replaces its first
    log."""
    path = run / "metrics.jsonl"
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        row = json.loads(line)
        rows.setdefault(row["step"], {}).update(row)
    return [row for _, row in sorted(rows.items())]


def draw(rows: Sequence[Mapping[str, Any]]) -> str:
    """The panels for which something was logged."""
    charts: list[str] = []
    for title, columns in PANELS:
        names = [n for c in columns for n in _matching(c, rows)]
        lines = {
            n: [(float(r["step"]), float(r[n])) for r in rows if isinstance(r.get(n), int | float)]
            for n in names
        }
        lines = {n: line for n, line in lines.items() if line}
        if lines:
            charts.append(chart(title, lines, top=HEIGHT * len(charts)))
    return page(charts)


def _matching(column: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head, star, tail = column.partition("*")
    if not star:
        return [column]
    found = {name: None for row in rows for name in row if name.startswith(head) and name.endswith(tail)}
    return [name for name in found if not name.endswith("/std")]
