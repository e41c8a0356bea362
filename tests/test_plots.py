"""Charts: specs that Vega-Lite accepts, deterministic well-formed SVG in light and dark, gaps as gaps, at most
twelve labels, readable colours, hostile names as text."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("altair")
from icr_tasks.leaderboard.plots import (
    Chart,
    Choice,
    Dot,
    Line,
    Panel,
    Point,
    Row,
    Step,
    curve,
    forest,
    heat,
    matrix,
    pareto,
    scales,
    theme,
    trend,
)
from icr_tasks.leaderboard.plots.pareto import front

TAGS = {"svg", "g", "title", "desc", "rect", "path", "line", "text", "tspan"}
HOSTILE = "</text><script>alert(1)</script>\x00\ud800\"'&"


def line(name: str, *means: float | None) -> Line:
    return Line(
        name, {4096 * 2**i: None if m is None else Point(m, m - 3, m + 3, 60) for i, m in enumerate(means)}
    )


def some(name: str) -> dict[str, Callable[[], Chart]]:
    """A maker of a chart of each shape with `name` wherever an outsider's name may stand."""
    return {
        "curve": lambda: curve(
            name,
            [
                line(name, 60, None, 50, 40),
                line("b", 55, 54, 53, 52),
                replace(line("c", 20, 20), reference=True),
            ],
            chance=25,
            y_label=name,
        ),
        "band": lambda: curve(name, [line(name, 60, 55)]),
        "heat": lambda: heat(
            name,
            [name, "1"],
            [name, "8k"],
            [
                Panel(name, [[0, 100], [None, 50]], n=[[3, 4], [0, 5]]),
                Panel("difference", [[-30, 5], [None, 0]], difference=True),
            ],
        ),
        "matrix": lambda: matrix(
            name,
            [
                Choice("full", name, 50, None, 9),
                Choice(name, name, 60, (10, 4, 16), 9, best=True),
                Choice("none", name, None, reason=name, reference=True),
            ],
        ),
        "pareto": lambda: pareto(
            name, [Dot(name, name, 100, 40, 38, 42), Dot("b", "full", 1000, 60, 55, 65)], x_label=name
        ),
        "forest": lambda: forest(
            name,
            [Row(name, -1.2, -2.8, 0.4, 2.0, name), Row("other", None, note=name, margin=5)],
            x_label=name,
        ),
        "trend": lambda: trend(name, [Step(name, 0.0), Step("b", None), Step("c", -2, -3, -1)], y_label=name),
    }


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in parse(svg).iter() if e.tag.rpartition("}")[2] == "text"]


def paths(svg: str, label: str) -> list[str]:
    """The `d` of the paths in marks of a kind (`mark-line`, `mark-area` ...)."""
    groups = [g for g in parse(svg).iter() if label in g.attrib.get("class", "").split()]
    return [p.attrib["d"] for g in groups for p in g.iter() if p.attrib.get("d")]


@pytest.mark.parametrize("shape", some("x"))
def test_well_formed_deterministic_and_safe(shape: str) -> None:
    chart = some(HOSTILE)[shape]()
    for dark, paper in ((False, "#ffffff"), (True, "#0d1117")):
        svg = chart.svg(dark=dark)
        assert svg == some(HOSTILE)[shape]().svg(dark=dark)
        assert {e.tag.rpartition("}")[2] for e in parse(svg).iter()} <= TAGS
        root = parse(svg)
        assert root.attrib["role"] == "img" and "alert(1)" in root.attrib["aria-label"]
        assert not [n for e in root.iter() for n in e.attrib if n.startswith("on") or "href" in n]
        drawn = re.sub(r"<(title|desc|text)[^>]*>[^<]*", "", svg)
        assert not re.search(r"NaN|Infinity|undefined", drawn)
        assert f'fill="{paper}"' in svg  # its own background in both themes
        assert len(svg) < 40_000
    assert any("alert(1)" in t for t in texts(svg))


@pytest.mark.parametrize("shape", some("x"))
def test_specs_are_vega_lite(shape: str) -> None:
    """Charts are drawn without Altair's own checks, which are slow; here they are made."""
    import altair

    spec = some(HOSTILE)[shape]().spec
    altair.Chart.from_dict(spec, validate=True)
    text = json.dumps(spec["datasets"])
    rest = json.dumps({k: v for k, v in spec.items() if k != "datasets"})
    assert "alert(1)" in text
    for expression in re.findall(r'"(?:labelExpr|expr|calculate|filter|test)": "([^"]*)"', rest):
        assert "alert" not in expression  # names are data, never part of an expression


def test_a_gap_is_a_gap() -> None:
    [one, two] = paths(curve("t", [line("a", 60, None, 50, 40)]).svg(), "mark-line")
    assert [one.count("L"), two.count("L")] == [0, 1]  # 4k stands alone, 16k to 32k is joined
    steps = [Step("a", 0.0), Step("b", 1.0), Step("c", None), Step("d", 2.0), Step("e", 3.0)]
    assert [p.count("L") for p in paths(trend("t", steps).svg(), "mark-line")] == [1, 1]
    assert "–" in texts(heat("t", ["0"], ["4k", "8k"], [Panel("p", [[None, 50.0]])]).svg())
    assert "–" in texts(matrix("t", [Choice("full", "4k", None, reason="missing")]).svg())


def test_few_lines_have_bands_many_have_whiskers() -> None:
    few, many = [curve("t", [line(c, 50, 40) for c in names]).svg() for names in ("ab", "abc")]
    assert len(paths(few, "mark-area")) == 2 and "mark-area" not in many
    assert (
        len(parse(many).findall(".//*[@class='mark-rule role-mark marks']")) or many.count("mark-rule") >= 1
    )


def test_offset_whiskers_do_not_hide_each_other() -> None:
    rows = curve("t", [line(c, 50, 40) for c in "abcd"]).spec["datasets"]
    at = {r["x"] for rows in rows.values() for r in rows if r.get("mean") == 50}
    assert len(at) == 4


def test_scores_start_at_zero_and_heat_maps_share_a_scale() -> None:
    assert "0" in texts(curve("t", [line("a", 90, 91)]).svg())
    one, two = [heat("t", ["0"], ["4k"], [Panel(n, [[50.0]])]).spec["datasets"]["d0"][0] for n in "ab"]
    assert one["fill"] == two["fill"]
    fills = {
        v: heat("t", ["0"], ["4k"], [Panel("d", [[v]], difference=True)]).spec["datasets"]["d0"][0]["fill"]
        for v in (0.0, 10.0, -10.0)
    }
    zero, plus, minus = ([int(fills[v][i : i + 2], 16) for i in (1, 3, 5)] for v in (0.0, 10.0, -10.0))
    assert len(set(zero)) == 1  # grey-white: no difference
    assert plus[2] > plus[0] and minus[0] > minus[2]  # blue up, orange down


def test_the_highest_at_a_length_is_drawn_however_little_it_has() -> None:
    many = [line(f"model-{i}", 50 + i, 40, 30) for i in range(14)]
    late = line("late", None, None, 35)
    shown = texts(curve("t", [*many, late]).svg())
    assert "late" in shown and "model-13" in shown and "model-0" in shown and "model-12" not in shown


def test_reference_lines_leave_room_for_the_settings_that_are_compared() -> None:
    """Of ten references four stay, those of most lengths; a few beside few settings stay all."""
    settings = [line(f"s{i}", 50 + i, 40) for i in range(12)]
    grey = [replace(line(f"ref{i}", *([10] * (1 + (i in (2, 5, 7, 9))))), reference=True) for i in range(10)]
    shown = texts(curve("t", [*settings, *grey]).svg())
    assert {t for t in shown if t.startswith("ref")} == {"ref2", "ref5", "ref7", "ref9"}
    assert sum(t[0] == "s" and t[1:].isdigit() for t in shown) == 8
    few = texts(curve("t", [*settings[:3], *grey[:6]]).svg())
    assert sum(t.startswith("ref") for t in few) == 6


def test_at_most_twelve_names_and_the_title_says_how_many_there_are() -> None:
    many = [line(f"model-{i}", 50 + i, 40) for i in range(40)]
    svg = curve("t", many).svg()
    assert sum(t.startswith("model-") for t in texts(svg)) == 12 and "12 of 40" in svg
    dots = [Dot(f"row-{i}", f"k{i % 6}", 1000 + 7 * i, 20 + i / 10, 19, 70) for i in range(300)]
    assert sum(t.startswith("row-") for t in texts(pareto("t", dots, x_label="x").svg())) <= 12
    assert (
        sum(
            t.startswith("step") for t in texts(trend("t", [Step(f"step {i}", 0.1) for i in range(90)]).svg())
        )
        <= 13
    )
    forest_rows = texts(forest("t", [Row(f"row-{i}", 1, 0, 2) for i in range(300)]).svg())
    assert sum(t.startswith("row-") for t in forest_rows) <= 30


def test_reference_lines_are_grey_and_never_on_the_front() -> None:
    dots = [Dot("gold", "gold@only", 1, 90, 89, 91, reference=True), Dot("a", "full", 2, 50, 49, 51)]
    assert [d.name for d in front(dots)] == ["a"]
    svg = curve(
        "t", [line("full", 50, 40), line("rag", 50, 40), replace(line("none", 9, 9), reference=True)]
    ).svg()
    grey = theme.config(False)["style"]["soft"]["color"]
    assert len(re.findall(rf'stroke="{grey}"[^>]*stroke-dasharray="2,3"', svg)) == 1


def test_a_long_name_keeps_both_ends() -> None:
    name = "organisation/" + "x" * 60 + "-step-300 rag@4k"
    assert any(
        t.endswith("rag@4k") and t.startswith("organ") and len(t) < 50
        for t in texts(curve("t", [line(name, 5, 4)]).svg())
    )


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from icr_tasks.errors import IcrError
    from icr_tasks.leaderboard.plots import chart

    monkeypatch.setattr(chart, "find_spec", lambda name: None)
    with pytest.raises(IcrError, match=r"\[board\]"):
        forest("t", [Row("a", 1.0)])


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


@pytest.mark.parametrize(("colours", "back"), [(theme.LIGHT, "#ffffff"), (theme.DARK, "#0d1117")])
def test_colours_are_readable_and_told_apart_by_the_colour_blind(colours: tuple[str, ...], back: str) -> None:
    assert all(contrast(c, back) >= 4.5 for c in colours)  # WCAG AA for text, so ample for lines

    def seen(colour: str, matrix: tuple[tuple[float, ...], ...]) -> list[float]:
        linear = [(int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
        mixed = [sum(m * v for m, v in zip(row, linear, strict=True)) for row in matrix]
        return [max(0.0, min(1.0, v)) ** (1 / 2.2) for v in mixed]

    for seen_by in DEFICIENT.values():  # the first four series; all of them also differ in marker or dash
        four = [seen(c, seen_by) for c in colours[:4]]
        for i, a in enumerate(four):
            for b in four[:i]:
                assert math.dist(a, b) > 0.09


def test_pareto_front() -> None:
    dots = [
        Dot(n, "kv", x, y, y - 1, y + 1)
        for n, x, y in (("a", 1, 10), ("b", 2, 9), ("c", 3, 20), ("d", 3, 15), ("e", 9, 20))
    ]
    assert [d.name for d in front(dots)] == ["a", "c"]
    rows = pareto("t", dots, x_label="bytes").spec["datasets"]["d0"]
    assert [r["text"] for r in rows if r["front"]] == ["a", "c"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-50, 500), min_size=1, max_size=12), st.floats(1, 20))
def test_labels_do_not_overlap(wanted: list[float], gap: float) -> None:
    low, high = 0.0, gap * len(wanted) + 10
    placed = scales.spread(wanted, gap, low, high)
    ordered = sorted(placed)
    assert all(b - a >= gap - 1e-6 for a, b in zip(ordered, ordered[1:], strict=False))
    assert ordered[-1] <= high + 1e-6 and ordered[0] >= low - 1e-6


@settings(max_examples=100, deadline=None)
@given(st.floats(-1000, 1000), st.floats(0.01, 1e6))
def test_ticks_are_round_and_cover(low: float, span: float) -> None:
    ticks = scales.nice_ticks(low, low + span)
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
    assert scales.count(value) == text


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
        lambda: trend("t", [Step("a", None)]),
        lambda: matrix("t", [Choice("full", "4k", None, reason="no run has it")]),
        lambda: pareto("t", [Dot("a", "none", 5, 0, 0, 0, reference=True)], x_label="x"),
    ],
)
def test_degenerate_data_still_draw(make: Callable[[], Chart]) -> None:
    parse(make().svg())


def test_forest_of_gate_and_comparison(tmp_path: Path) -> None:
    """`icr gate` writes gate.svg, `icr compare --plot` a file; the numbers are those of the tables."""
    import board_tree

    from icr_tasks.cli import main

    base = board_tree.run(tmp_path / "r", "base", datasets=("nq", "mc"))
    new = board_tree.run(tmp_path / "r", "new", skill=0.5, datasets=("nq", "mc"))
    assert main(["compare", str(base), str(new), "--plot", str(tmp_path / "c.svg")]) == 0
    svg = (tmp_path / "c.svg").read_text()
    assert {"suite", "HELMET-RAG", "InfiniteBench"} <= set(texts(svg))
    command = ["gate", str(new), "--baseline", str(base), "-o", str(tmp_path / "g")]
    assert main(command) == 3 and main([*command, "--allow-inconclusive"]) == 0  # 20 questions settle nothing
    gate = (tmp_path / "g" / "gate.svg").read_text()
    assert "(bar: margin)" in gate and "InfiniteBench" in gate
    verdict = json.loads((tmp_path / "g" / "gate.json").read_text())["verdict"]
    assert f"Gate: {verdict}" in gate


@pytest.mark.parametrize("dark", [False, True])
def test_themes_are_vega_lite_too(dark: bool) -> None:
    import altair

    chart = forest("t", [Row("a", 1.0, 0.0, 2.0)])
    altair.Chart.from_dict(chart.spec | {"config": theme.config(dark)}, validate=True)
    assert "#ddd" not in chart.svg(dark=dark)  # Vega's own frame around a plot


def test_twelve_series_differ_in_colour_or_marker() -> None:
    pairs = {(i % theme.SERIES, shape) for i, shape in enumerate(theme.shapes(12))}
    assert len(pairs) == 12


def test_lengths_and_what_to_use_begin_with_the_same_models(board: Any) -> None:
    """Drawn from the advice in the other order of models."""
    from icr_tasks.leaderboard.board.pictures import pictures

    found = [p.name for p in pictures(dataclasses.replace(board, advice=board.advice[::-1]))]
    slugs = {
        kind: [n.partition("-")[2] for n in found if n.startswith(kind)] for kind in ("length-", "choice-")
    }
    models = {row.name for row in board.rows}
    order = {
        kind: list(
            dict.fromkeys(m for n in names for m in sorted(models, key=len)[::-1] if m.replace("/", "_") in n)
        )
        for kind, names in slugs.items()
    }
    shared = [m for m in order["length-"] if m in order["choice-"]]
    assert len(shared) > 1 and [m for m in order["choice-"] if m in shared] == shared, (found, models)


def test_a_drop_picture_without_a_single_value_is_left_out() -> None:
    from icr_tasks.leaderboard.board.pictures import _drops
    from icr_tasks.leaderboard.board.tables import Line, Shown, Table

    cells = (Shown("diff", reason="one cluster"), Shown("diff", -1.0, -2.0, 0.0))
    lines = [Line(("org/m", "kv:topk@0.05"), [cell]) for cell in cells]
    empty = Table("drop", "Drop", ["avg"], lines[:1])
    assert list(_drops([empty])) == []
    assert len(list(_drops([dataclasses.replace(empty, lines=lines)]))) == 1
