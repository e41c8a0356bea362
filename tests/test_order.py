"""Order, marks and verdicts do not hang on the last bits of a float: another processor adds in another order.

Every estimate is moved by a few units in the last place, as another linear algebra kernel moves it; whatever
is ordered, marked or compared must stay as it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import board_tree
import gatekit
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_tasks.cli import main
from icr_tasks.leaderboard import plots
from icr_tasks.leaderboard.ledgers.load import load_run
from icr_tasks.leaderboard.pairs import flips
from icr_tasks.leaderboard.pairs import forest as forest_report
from icr_tasks.leaderboard.pairs import reports as compare_report
from icr_tasks.leaderboard.pairs.gate import gate
from icr_tasks.leaderboard.pairs.joined import Pairs, pair
from icr_tasks.leaderboard.plots import Dot, Line, Panel, Point, Row, Step, curve, forest, heat, pareto, trend
from icr_tasks.leaderboard.plots.pareto import front
from icr_tasks.leaderboard.stats import Design, Effect
from icr_tasks.leaderboard.text.names import points
from icr_tasks.leaderboard.text.printed import figures, printed, settled
from icr_tasks.ranking.report import table as rank_table

SEEDS = range(6)
Noise = Callable[[float], float]


def noise(seed: int) -> Noise:
    """Moves a number by up to four units in its last place."""
    rng = np.random.default_rng(seed)

    def move(value: float) -> float:
        return value + int(rng.integers(-4, 5)) * math.ulp(value or 1e-17) if math.isfinite(value) else value

    return move


@pytest.fixture
def other_processor(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`other_processor(seed)`: from now on every estimate carries rounding noise."""
    effect, mean = Design._effect, Design.mean

    def use(seed: int) -> None:
        move = noise(seed)

        def noisy(self: Design, *args: Any, **options: Any) -> Effect:
            found = effect(self, *args, **options)
            names = ("mean", "se", "df", "p", "p_less")
            return dataclasses.replace(found, **{n: move(getattr(found, n)) for n in names})

        monkeypatch.setattr(Design, "_effect", noisy)
        monkeypatch.setattr(Design, "mean", lambda self, d: move(mean(self, d)))

    return use


@pytest.fixture(scope="module")
def ties(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models whose averages are equal although their items are not: by pairs best, in the middle and last."""
    root = tmp_path_factory.mktemp("ties")

    def turned(by: int, worse: float) -> Callable[[Any, Any], None]:
        def change(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
            for task in head["tasks"]:
                own = [r for r in rows if r["task"] == task]
                scores = [round(0.7 * (i % 3) / 2 * worse + 0.1, 3) for i in range(len(own))]
                for row, score in zip(own, scores[by:] + scores[:by], strict=True):
                    row["score"] = dict.fromkeys(row["score"], score)

        return change

    for name, by, worse in (
        ("z", 0, 1.0),
        ("a", 6, 1.0),
        ("n", 3, 0.99),
        ("m", 9, 0.99),
        ("y", 0, 0.2),
        ("b", 3, 0.2),
    ):
        for setting in ("full", "kv:topk@0.05", "rag@4k"):
            board_tree.run(
                root, f"org/{name}", setting, change=turned(by, worse), datasets=("hotpotqa", "nq", "qa")
            )
    for step in (100, 200, 300):
        board_tree.run(
            root, f"org/grpo-step-{step}", change=turned(step // 100, 0.5), datasets=("nq",), started=step
        )
    return root


def written(root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Every file of a board but board.json, whose numbers are unrounded; and what goes to standard output."""
    assert main(["board", str(root), "-o", str(out), "--items", "csv"]) == 0
    found = {p.name: p.read_text() for p in sorted(out.iterdir()) if p.name != "board.json"}
    capsys.readouterr()
    for form in ("tsv", "latex"):
        assert main(["board", str(root), "--format", form, "--sort", "avg"]) == 0
        found[form] = capsys.readouterr().out
    return found


@pytest.mark.parametrize("which", ["tree", "ties"])
def test_boards_marks_plots_and_csv_stay(
    which: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    other_processor: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spec(self: plots.Chart, *, dark: bool = False) -> str:  # which the picture is drawn from
        return json.dumps([self.title, self.words, self.spec])

    monkeypatch.setattr(plots.Chart, "svg", spec)
    root = request.getfixturevalue(which)
    before = written(root, tmp_path / "before", capsys)
    assert {"board.md", "board.html", "items.csv", "tsv", "pareto-tokens.svg", "drop.svg"} <= set(before)
    assert any(name.startswith("trend-") for name in before)
    for seed in SEEDS[:2]:
        other_processor(seed)
        after = written(root, tmp_path / str(seed), capsys)
        assert [name for name in before if before[name] != after.get(name)] == []


def test_rows_that_print_alike_are_in_the_order_of_their_names(ties: Path) -> None:
    from icr_tasks.leaderboard.board.build import build
    from icr_tasks.leaderboard.board.tables import Options

    lines = board_tree.table(build(ties, Options()), "board").lines
    full = [line for line in lines if line.labels[1] == "full" and "grpo" not in line.labels[0]]
    assert [line.labels[0] for line in full] == [f"org/{n}" for n in "azmnby"]
    marks = [line.cells[-1].mark for line in lines]
    assert (
        marks[0] == "best" and marks.count("best") == 1 and "tied" in marks
    )  # the best mark stands on the first line


def pairs_with_equal_drops(root: Path) -> Pairs:
    """A candidate that lost the same number of items at 4k and at 8k, so that two cells are equally the
    worst."""
    rows = gatekit.rows()
    base = gatekit.write(root / "base", rows)
    for task in ("icr_helmet_rag_nq_4k", "icr_helmet_rag_nq_8k"):
        right = [r for r in rows[task] if r["score"]["subem"] == 1.0]
        for row in right[:40:2]:
            row["score"] = {"subem": 0.0, "other": 0.0}
    new = gatekit.write(root / "new", rows, model="org/new")
    return pair(load_run(base), load_run(new))


def test_gate_and_comparison_stay(tmp_path: Path, other_processor: Callable[[int], None]) -> None:
    joined = pairs_with_equal_drops(tmp_path)
    runs = [load_run(next((tmp_path / n).rglob("run.json")).parent) for n in ("base", "new")]
    # margins that equal a lower bound to the last bit, where any noise would turn the verdict
    edge = [-e.line.delta.ci(0.9)[0] for e in gate(joined).endpoints[:2]]

    def reports() -> list[str]:
        found = gate(joined, margin=edge[0], margins={"helmet_rag": edge[1]})
        verdicts = " ".join(f"{e.verdict} {e.remark}" for e in found.endpoints)
        forms = [
            compare_report.terminal(found, "a", "b"),
            compare_report.markdown(found, "a", "b"),
            compare_report.junit(found),
        ]
        drawn = forest_report.of_gate(found, "t")
        compared = forest_report.of_comparison(found.comparison, "t")  # type: ignore[arg-type]
        return [verdicts, *forms, drawn, compared, compare_report.render(joined, *runs)]

    before = reports()
    assert "worst cells: nq@4k" in before[1] and before[0].startswith("REGRESSED  REGRESSED  PASS")
    for seed in SEEDS:
        other_processor(seed)
        assert reports() == before


def test_flips_are_worst_first_as_printed(tmp_path: Path) -> None:
    """0.9 - 0.2 and 0.8 - 0.1 are one drop of 70 points, though not one float; 0.1 + 0.2 and 0.3 are no flip
    at all."""
    rows = gatekit.rows(tasks=("icr_longbench_v2",))
    sides = [(0.9, 0.2), (0.8, 0.1), (0.7, 0.0), (1.0, 0.3), (0.1 + 0.2, 0.3)]
    runs = []
    for side, name in enumerate(("base", "new")):
        for row, scores in zip(rows["icr_longbench_v2"], sides, strict=False):
            row["score"] = {"acc": scores[side], "other": 0.0}
        runs.append(load_run(gatekit.write(tmp_path / name, rows, model=f"org/{name}")))
    joined = pair(*runs)
    text = flips.markdown(joined, *runs)
    assert "4 worse, 0 better, 116 same" in text
    shown = [line.split("|")[2].strip(" `") for line in text.splitlines() if line.startswith("| `")]
    assert shown == joined.item[:4].tolist()


def drawings(move: Noise) -> list[Any]:
    """Every chart and the front, of values that print alike or lie where rounding turns."""
    means = [54.35, 54.35, 12.25, 12.25, 54.449999999]
    line = [
        Line(f"l{i}", {4096: Point(*map(move, (m, m - 3.05, m + 3.05)), 9), 8192: None})
        for i, m in enumerate(means)
    ]
    dots = [
        Dot(f"d{i}", "kv", move(4096.0 + i % 2), *map(move, (m, m - 2, m + 2))) for i, m in enumerate(means)
    ]
    steps = [Step(f"s{i}", *map(move, (m - 54.35, m - 60, m))) for i, m in enumerate(means)]
    rows = [Row(f"r{i}", *map(move, (m - 54.35, m - 60, m)), margin=move(2.0)) for i, m in enumerate(means)]
    panel = Panel("p", [[move(m) for m in (2.5, 54.5, 12.25)]])
    signed = Panel("q", [[move(m) for m in (-2.5, 0.5, 0.0)]], difference=True)
    return [
        curve("t", line),
        pareto("t", dots, x_label="x"),
        trend("t", steps),
        forest("t", rows),
        heat("t", ["0"], ["4k", "8k", "16k"], [panel, signed]),
        [d.name for d in front(dots)],
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_charts_stay(seed: int) -> None:
    assert drawings(noise(seed)) == drawings(float)


def test_the_front_reads_what_is_printed() -> None:
    """Costs of 4.1k and 4.1k are one cost, scores of 50.01 and 49.99 one score: the first by name is on the
    front."""
    dots = [
        Dot("b", "kv", 4096, 49.99, 48, 52),
        Dot("a", "kv", 4099, 50.01, 48, 52),
        Dot("c", "kv", 9000, 50.04, 48, 52),
    ]
    assert [d.name for d in front(dots)] == ["a"]


@pytest.mark.parametrize("seed", SEEDS)
def test_ranking_methods_stay(seed: int) -> None:
    def report(move: Noise) -> str:
        methods = {
            name: {"ndcg@10": {"mean": move(mean), "low": mean, "high": mean, "n": 5, "clusters": 5}}
            for name, mean in (("z", 0.3), ("a", 0.1 + 0.2), ("m", 0.9))
        }
        head = {
            "model": "m",
            "task": "t",
            "prompt": "ao",
            "n_items": 5,
            "n_left_out": 0,
            "documents": 5,
            "tokens": 9,
        }
        return rank_table({**head, "methods": methods, "peak_memory": {}, "seconds": 1.0})

    assert report(noise(seed)) == report(float)
    assert [line[:3] for line in report(float).splitlines() if " | " in line][1:] == ["| m", "| a", "| z"]


parts = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 12), st.integers(0, 60)), min_size=1, max_size=60
)


def _design(rows: list[tuple[int, int, int]]) -> tuple[Design, np.ndarray]:
    cells, clusters = [f"{c % 3}@{c}" for c, _, _ in rows], [k for _, k, _ in rows]
    return Design(clusters, cells, [c[0] for c in cells]), np.array([n / 60 for _, _, n in rows])


@given(parts, st.randoms(use_true_random=False))
def test_a_mean_is_the_same_in_every_order(rows: list[tuple[int, int, int]], random: Any) -> None:
    design, values = _design(rows)
    shuffled = random.sample(rows, len(rows))
    again, moved = _design(shuffled)
    assert design.mean(values) == again.mean(moved)
    one, two = design.score(values), again.score(moved)
    assert [points(v) for v in (one.mean, *one.ci())] == [points(v) for v in (two.mean, *two.ci())]


@given(parts)
def test_a_constant_averages_to_itself(rows: list[tuple[int, int, int]]) -> None:
    design, values = _design(rows)
    for constant in (0.0, 0.1, 1 / 3, 1.0):
        assert design.mean(np.full(len(values), constant)) == pytest.approx(constant, abs=1e-16, rel=2e-16)
    assert design.mean(np.ones(len(values))) == 1.0  # where the interval of "all right" takes over


def boundaries() -> Iterator[float]:
    yield from (n / 400 for n in range(401))  # 0.1225: prints as 12.2 or 12.3 according to the last bit


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_printed_is_what_is_ordered(seed: int) -> None:
    move = noise(seed)
    for value in boundaries():
        again = move(value)
        assert points(value) == points(again) == f"{printed(100 * again):.1f}"
        assert printed(100 * value) == printed(100 * again) and settled(-value) == settled(-again)
    assert points(-1e-17, sign=True) == "0.0" and points(-0.0004, sign=True) == "\u22120.0"
    assert (figures(14_336.4), figures(14_341)) == (14_300, 14_300)
    assert settled(math.inf) == math.inf and math.isnan(settled(math.nan))


def test_equal_clusters_have_whole_degrees_of_freedom() -> None:
    """G equal clusters give G - 1 on every machine, although df is a quotient of floats."""
    rng = np.random.default_rng(0)
    for clusters in (5, 39, 40, 100):
        effects = [Design(range(clusters)).effect(rng.normal(0.1, 0.3, clusters)) for _ in range(100)]
        assert {e.df for e in effects} == {clusters - 1} and {e.test for e in effects} == {"t"}
