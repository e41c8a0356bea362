"""The published tables as data, and every contradiction between them that arithmetic can show."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import board_tree
import pytest

from icr_tasks.benchmarks.declare import all_benchmarks
from icr_tasks.cli import main
from icr_tasks.leaderboard.board import published, reported
from icr_tasks.leaderboard.ledgers.load import load_run
from icr_tasks.leaderboard.text import names, suite
from icr_tasks.settings import Setting


def test_data_are_complete() -> None:
    cells = {name: sum(len(row[2]) for row in t["rows"]) for name, t in published.data()["tables"].items()}
    assert cells == {"1": 24, "2": 65, "3": 30, "4": 18, "10": 190, "11": 162, "12": 95}
    for table in published.data()["tables"].values():
        assert all(len(row[2]) == len(table["columns"]) for row in table["rows"])


@pytest.mark.parametrize(
    ("mean", "n", "possible"),
    [
        (72.1, 229, True),
        (72.0, 229, False),
        (0.0, 7, True),
        (100.0, 7, True),
        (33.3, 3, True),
        (34.9, 503, False),
        (34.9, 502, True),
        (50.0, 3, False),
        (56.2, 600, True),
    ],
)
def test_attainable(mean: float, n: int, possible: bool) -> None:
    assert published.attainable(mean, n) is possible


def test_every_mean_of_counts_is_attainable() -> None:
    for n in (3, 229, 503):
        assert all(published.attainable(round(100 * k / n, 1), n) for k in range(n + 1))


def test_contradictions_in_the_paper() -> None:
    found = published.check()
    assert Counter((f.kind, f.table) for f in found) == {
        ("impossible", "2"): 4,
        ("impossible", "10"): 12,
        ("impossible", "12"): 7,
        ("average", "1"): 1,
        ("average", "11"): 1,
        ("drop", "3"): 15,
        ("disagree", "10/12"): 2,
        ("claim", "12"): 1,
    }
    by = {(f.kind, f.table, f.row, f.column): f for f in found}
    kv = "kv:retrievalattention"
    # The QA column of Table 3 contradicts Table 2 in all six rows.
    models = ("Qwen2.5-7B-Instruct-1M", "R_AO", "R_ID", "R_ID+C", "R_ID+Q", "R_R+Judge")
    qa = [round(by["drop", "3", f"{m} {kv}", "qa"].derived, 1) for m in models]
    assert qa == [-8.0, -12.0, -15.6, -13.4, -12.0, -8.1]
    # Averages from Table 2: the R+Judge model loses more than the base model, not less.
    averages = [round(by["drop", "3", f"{m} {kv}", "avg"].derived, 1) for m in models]
    assert averages == [-12.2, -11.7, -11.5, -10.8, -10.8, -12.6]
    assert {c for kind, _, row, c in by if kind == "drop" and row.startswith("R_R+Judge")} == {
        "qa",
        "sum",
        "lb",
        "loong",
        "avg",
    }
    # Four LongBench-v2 cells cannot come from 503 items, all uncapped rows of 128k models; all fit 502.
    lb = [f for f in found if f.kind == "impossible" and f.column == "lb"]
    assert sorted(f.printed for f in lb) == [29.1, 31.1, 32.7, 34.9] and all(
        "N=502 would fit" in f.text for f in lb
    )
    [best] = [f for f in found if f.kind == "claim"]
    assert (best.column, round(best.derived, 1)) == ("rag@128k", 45.4)


def test_a_correct_table_has_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks are not blind accusations: with Table 3 derived from Table 2, its findings vanish."""
    import copy

    repaired = copy.deepcopy(published.data())
    scores = {(r[0], r[1]): r[2] for r in repaired["tables"]["2"]["rows"]}
    for row in repaired["tables"]["3"]["rows"]:
        row[2] = [
            round(published.drop(f, c), 1)
            for f, c in zip(scores[row[0], "full"], scores[row[0], row[1]], strict=True)
        ]
        row[3] = round(sum(row[2]) / len(row[2]), 1)
    monkeypatch.setattr(published, "data", lambda: repaired)
    assert not [f for f in published.check() if f.table == "3"]


def test_reports_of_others_name_source_and_month() -> None:
    """Every row can be looked up, and is a figure of a task of ours."""
    for row in reported.rows():
        assert re.fullmatch(r"20\d\d-\d\d", row["date"]) and len(row["source"]) > 10
        assert 0 < row["value"] <= 100 and row["names"]
        [found] = [b for b in all_benchmarks() if b.name == row["benchmark"]]
        whole = {(t.dataset, None) for t in found.tasks}  # over all lengths
        assert (row["dataset"], row["length"]) in {(t.dataset, t.length) for t in found.tasks} | whole
        assert (
            row["metric"] in found.metrics and row.get("prompt", next(iter(found.prompts))) in found.prompts
        )
        assert str(Setting.parse(row.get("setting", "full"))) == row.get("setting", "full")


def test_a_run_and_a_report_that_cannot_both_be_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report of the same model, task and metric is compared; one within chance is not mentioned."""
    folder = board_tree.run(tmp_path / "r", "org/base-7b", datasets=("nq",))
    mean = 100 * load_run(folder).tasks["icr_helmet_rag_nq_4k"].headline().mean()
    row = {"model": "Base", "names": ["base-7B"], "benchmark": "helmet_rag", "dataset": "nq", "length": "4k"}
    row |= {"metric": "subem", "n": None, "source": "A card", "date": "2026-01", "note": "another prompt"}
    for value, other, said in (
        (mean + 1, {}, False),
        (2.0, {}, True),
        (2.0, {"names": ["base"]}, False),
        (2.0, {"setting": "gold@only"}, False),
        (2.0, {"prompt": load_run(folder).prompt}, True),
        (2.0, {"prompt": "another"}, False),
        (2.0, {"length": None}, False),
    ):
        monkeypatch.setattr(reported, "rows", lambda v=value, o=other: [{**row, "value": round(v, 1), **o}])
        main(["check", str(tmp_path / "r")])
        assert ("both cannot be right (another prompt)" in capsys.readouterr().out) == said


def test_a_suite_has_a_name_that_does_not_change() -> None:
    """All four are suite 1; a part says so; what somebody adds makes another name."""
    four = ["helmet_rag", "infbench", "longbench_v2", "loong_fin"]
    assert suite.version(four) == "1" and suite.version(four[:3]) == "1 (3 of 4)"
    assert suite.version(four[:1]) is None and suite.version(["mrcr", "graphwalks"]) is None
    said = suite.sentence(four)
    assert said is not None and said.startswith(
        "suite 1: HELMET-RAG, InfiniteBench, LongBench-v2, Loong-Fin;"
    )
    names.SUITE.add("theirs")
    try:
        assert suite.version([*four, "theirs"]) == "1 + theirs"
    finally:
        names.SUITE.discard("theirs")


def test_runs_record_the_suite_they_belong_to() -> None:
    told = {b.name: b.about("all")["suite"] for b in all_benchmarks()}
    assert {name for name, version in told.items() if version == names.SUITE_VERSION} == set(
        names.SUITES["1"]
    )
