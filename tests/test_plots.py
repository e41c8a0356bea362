"""Plots: deterministic well-formed SVG, gaps as gaps, readable colours in light and dark, hostile names as
text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks.leaderboard.plots import (
    Dot,
    Line,
    Panel,
    Point,
    Row,
    Step,
    canvas,
    curve,
    forest,
    heat,
    pareto,
    trend,
)
from icr_tasks.leaderboard.plots.pareto import front

HOSTILE = "</text><script>alert(1)</script>\x00\ud800\"'&"


def line(name: str, *means: float | None) -> Line:
    return Line(
        name, {4096 * 2**i: None if m is None else Point(m, m - 3, m + 3, 60) for i, m in enumerate(means)}
    )


def some(name: str) -> dict[str, str]:
    """One plot of each shape with `name` wherever an outsider's name may stand."""
    return {
        "curve": curve(
            name,
            [line(name, 60, None, 50, 40), line("b", 55, 54, 53, 52), line("c", 20, 20, 20, 20)],
            chance=25,
            y_label=name,
        ),
        "band": curve(name, [line(name, 60, 55)]),
        "heat": heat(
            name,
            [name, "1"],
            [name, "8k"],
            [
                Panel(name, [[0, 100], [None, 50]]),
                Panel("difference", [[-30, 5], [None, 0]], difference=True),
            ],
        ),
        "pareto": pareto(
            name, [Dot(name, name, 100, 40, 38, 42), Dot("b", "full", 1000, 60, 55, 65)], x_label=name
        ),
        "forest": forest(
            name,
            [Row(name, -1.2, -2.8, 0.4, 2.0, name), Row("other", None, note=name, margin=5)],
            x_label=name,
        ),
        "trend": trend(name, [Step(name, 0.0), Step("b", None), Step("c", -2, -3, -1)], y_label=name),
    }


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def tags(svg: str, name: str) -> list[ElementTree.Element]:
    return [e for e in parse(svg).iter() if e.tag.rpartition("}")[2] == name]


@pytest.mark.parametrize("shape", some("x"))
def test_well_formed_deterministic_and_safe(shape: str) -> None:
    svg = some(HOSTILE)[shape]
    assert svg == some(HOSTILE)[shape]
    assert {e.tag.rpartition("}")[2] for e in parse(svg).iter()} <= {
        "svg",
        "title",
        "desc",
        "style",
        "rect",
        "path",
        "circle",
        "text",
    }
    root = parse(svg)
    assert root.attrib["role"] == "img" and "alert(1)" in root.attrib["aria-label"]
    assert not re.search(r"nan|inf\b", re.sub(r"<(title|desc|text)[^>]*>[^<]*", "", svg))
    assert "prefers-color-scheme:dark" in svg and 'class="bg"' in svg  # its own background in both themes
    assert len(svg) < 14_000


def test_a_gap_is_a_gap() -> None:
    paths = re.findall(r'class="line s0" d="([^"]+)"', curve("t", [line("a", 60, None, 50, 40)]))
    assert [p.count("L") for p in paths] == [0, 1]  # 4k stands alone, 16k to 32k is joined
    paths = re.findall(
        r'class="line s0" d="([^"]+)"',
        trend("t", [Step("a", 0.0), Step("b", 1.0), Step("c", None), Step("d", 2.0), Step("e", 3.0)]),
    )
    assert [p.count("L") for p in paths] == [1, 1]
    cells = tags(heat("t", ["0"], ["4k", "8k"], [Panel("p", [[None, 50.0]])]), "text")
    assert "–" in [c.text for c in cells]


def test_few_lines_have_bands_many_have_whiskers() -> None:
    assert curve("t", [line("a", 50, 40), line("b", 30, 20)]).count("band f") == 2
    assert "band f" not in curve("t", [line(c, 50, 40) for c in "abc"])


def test_scores_start_at_zero_and_heat_maps_share_a_scale() -> None:
    ticks = [t.text for t in tags(curve("t", [line("a", 90, 91)]), "text")]
    assert "0" in ticks
    cells = heat("t", ["0"], ["4k"], [Panel("a", [[50.0]]), Panel("b", [[50.0]])])
    fills = re.findall(r'<rect fill="(#\w+)"', cells)
    assert fills[0] == fills[1]
    zero, plus, minus = (
        re.findall(
            r'<rect fill="#(\w\w)(\w\w)(\w\w)"',
            heat("t", ["0"], ["4k"], [Panel("d", [[v]], difference=True)]),
        )[0]
        for v in (0.0, 10.0, -10.0)
    )
    assert len(set(zero)) == 1  # grey-white: no difference
    assert int(plus[2], 16) > int(plus[0], 16) and int(minus[0], 16) > int(
        minus[2], 16
    )  # blue up, orange down


def contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# Brettel-style dichromacy as 3x3 matrices on linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
DEFICIENT = {
    "protan": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
}


@pytest.mark.parametrize(("colours", "back"), [(canvas.LIGHT, "#ffffff"), (canvas.DARK, "#0d1117")])
def test_colours_are_readable_and_told_apart_by_the_colour_blind(colours: tuple[str, ...], back: str) -> None:
    assert all(contrast(c, back) >= 4.5 for c in colours)  # WCAG AA for text, so ample for lines

    def seen(colour: str, matrix: tuple[tuple[float, ...], ...]) -> list[float]:
        linear = [(int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
        mixed = [sum(m * v for m, v in zip(row, linear, strict=True)) for row in matrix]
        return [max(0.0, min(1.0, v)) ** (1 / 2.2) for v in mixed]

    for matrix in DEFICIENT.values():  # the first four series; all of them also differ in marker or dash
        four = [seen(c, matrix) for c in colours[:4]]
        for i, a in enumerate(four):
            for b in four[:i]:
                assert math.dist(a, b) > 0.09


def test_pareto_front() -> None:
    dots = [
        Dot(n, "kv", x, y, y - 1, y + 1)
        for n, x, y in (("a", 1, 10), ("b", 2, 9), ("c", 3, 20), ("d", 3, 15), ("e", 9, 20))
    ]
    assert [d.name for d in front(dots)] == ["a", "c"]
    svg = pareto("t", dots, x_label="bytes")
    assert svg.count('class="hole') == 6  # three beaten dots, each in the plot and in the legend


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-50, 500), min_size=1, max_size=12), st.floats(1, 20))
def test_labels_do_not_overlap(wanted: list[float], gap: float) -> None:
    low, high = 0.0, gap * len(wanted) + 10
    placed = canvas.spread(wanted, gap, low, high)
    ordered = sorted(placed)
    assert all(b - a >= gap - 1e-6 for a, b in zip(ordered, ordered[1:], strict=False))
    assert ordered[-1] <= high + 1e-6 and ordered[0] >= low - 1e-6


@settings(max_examples=100, deadline=None)
@given(st.floats(-1000, 1000), st.floats(0.01, 1e6))
def test_ticks_are_round_and_cover(low: float, span: float) -> None:
    ticks = canvas.nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 * span and ticks[-1] >= low + span - 1e-6 * span and 2 <= len(ticks) <= 13


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4096, "4k"),
        (131072, "128k"),
        (1048576, "1M"),
        (530, "530"),
        (14336, "14k"),
        (15000, "15k"),
        (2.5e9, "2.5G"),
    ],
)
def test_counts(value: float, text: str) -> None:
    assert canvas.count(value) == text


@pytest.mark.parametrize(
    "make",
    [
        lambda: curve("t", [Line("a", {4096: Point(50, 40, 60)})]),
        lambda: curve("t", [line("a", 0, 0), line("b", None, None), line("c", 100, 100)]),
        lambda: heat("t", ["0"], ["4k"], [Panel("p", [[None]])]),
        lambda: pareto("t", [Dot("a", "kv", 5, 0, 0, 0)], x_label="x"),
        lambda: forest("t", [Row("a", None)]),
        lambda: forest("t", [Row("a", 0.0, 0.0, 0.0)]),
        lambda: trend("t", [Step("a", 0.0)]),
    ],
)
def test_degenerate_data_still_draw(make: Callable[[], str]) -> None:
    parse(make())


def test_forest_of_gate_and_comparison(tmp_path: Path) -> None:
    """`icr gate` writes gate.svg, `icr compare --plot` a file; the numbers are those of the tables."""
    import board_tree

    from icr_tasks.cli import main

    base = board_tree.run(tmp_path / "r", "base", datasets=("nq", "mc"))
    new = board_tree.run(tmp_path / "r", "new", skill=0.5, datasets=("nq", "mc"))
    assert main(["compare", str(base), str(new), "--plot", str(tmp_path / "c.svg")]) == 0
    svg = (tmp_path / "c.svg").read_text()
    assert {"suite", "HELMET-RAG", "InfiniteBench"} <= {t.text for t in tags(svg, "text")}
    command = ["gate", str(new), "--baseline", str(base), "-o", str(tmp_path / "g")]
    assert main(command) == 3 and main([*command, "--allow-inconclusive"]) == 0  # 20 questions settle nothing
    gate = (tmp_path / "g" / "gate.svg").read_text()
    assert gate.count('class="line s1"') == 3  # a margin bar for each endpoint
    verdict = json.loads((tmp_path / "g" / "gate.json").read_text())["verdict"]
    assert f"Gate: {verdict}" in gate
