"""Rows that differ only in how their model was run are told apart wherever they stand, and none is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import board_tree
import pytest
from board_tree import table

from icr_tasks.cli import main
from icr_tasks.leaderboard.board.build import build
from icr_tasks.leaderboard.board.items import Items
from icr_tasks.leaderboard.board.pictures import pictures
from icr_tasks.leaderboard.board.tables import Options
from icr_tasks.leaderboard.board.write import markdown, page
from icr_tasks.schema import run_fingerprint

SETTINGS = ("full", "kv:topk@0.05", "rag@4k")


def _inputs(**more: Any) -> Any:
    """Inputs of the fingerprint: `args` go to the model, the rest stand beside it."""

    def change(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        inputs = head["fingerprint_inputs"]
        inputs["model_args"] |= more.get("args", {})
        inputs |= {k: v for k, v in more.items() if k != "args"}
        head["fingerprint"] = run_fingerprint(inputs)

    return change


def _thinking(root: Path, model: str = "m", **more: Any) -> None:
    for setting in more.pop("settings", SETTINGS):
        for how in ("on", "off"):
            board_tree.run(root, model, setting, change=_inputs(thinking=how), datasets=("nq", "mc"), **more)


def test_thoughts_on_and_off_are_two_lines_of_every_table(tmp_path: Path) -> None:
    """Drop, depth and what to use had two lines of one name with other numbers."""
    _thinking(tmp_path)
    board = build(tmp_path, Options())
    for one in board.tables:
        labels = [line.labels for line in one.lines]
        assert len(set(labels)) == len(labels), (one.name, labels)
    assert {line.labels[2] for line in table(board, "drop").lines} == {"ao thinking=on", "ao thinking=off"}
    assert {line.labels[0] for line in table(board, "use").lines} == {
        "m (ao thinking=on)",
        "m (ao thinking=off)",
    }


def test_checkpoints_with_and_without_thoughts_are_two_trends(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    for step in (0, 10, 20):
        _thinking(tmp_path, f"m-step-{step}", settings=("full",))
    found = [p for p in pictures(build(tmp_path, Options())) if p.group == "trend"]
    assert sorted(p.chart.title.partition(":")[0] for p in found) == [
        "m full (ao thinking=off)",
        "m full (ao thinking=on)",
    ]
    for picture in found:
        assert picture.chart.words.count("step") == 3 and "no value" not in picture.chart.words


def test_folders_of_a_trainer_are_a_trend(tmp_path: Path) -> None:
    """`icr collect` calls run/checkpoint-10 run@10."""
    pytest.importorskip("altair")
    for step in (10, 20, 100):
        board_tree.run(tmp_path, f"run@{step}", datasets=("mc",), skill=-step / 100)
    [found] = [p for p in pictures(build(tmp_path, Options())) if p.group == "trend"]
    assert found.chart.words.startswith("step 10 +0.0, step 20 ") and "step 100 " in found.chart.words


def test_a_length_that_only_retrieval_has_is_named(tmp_path: Path) -> None:
    """Full context did not fit there; the table began and ended with what did."""
    board_tree.run(tmp_path, "m", datasets=("nq",), skip=("icr_helmet_rag_nq_64k",))
    board_tree.run(tmp_path, "m", "rag@4k", datasets=("nq",))
    [one] = [t for t in build(tmp_path, Options()).tables if t.name.startswith("use-m-helmet")]
    assert any("nq 64k: no run with full context" in note for note in one.notes)


def test_a_row_with_several_partners_is_named(tmp_path: Path) -> None:
    """Two full-context runs, and a compressed one made like neither: it vanished without a word."""
    for dtype in ("bfloat16", "float16"):
        board_tree.run(tmp_path, "m", change=_inputs(args={"dtype": dtype}), datasets=("nq", "mc"))
    board_tree.run(
        tmp_path, "m", "kv:topk@0.05", change=_inputs(args={"dtype": "float32"}), datasets=("nq", "mc")
    )
    other = ("n", "full"), ("n", "kv:topk@0.05")
    for model, setting in other:
        board_tree.run(tmp_path, model, setting, datasets=("nq", "mc"))
    board = build(tmp_path, Options())
    said = markdown(board, [], [], False)
    assert "m kv:topk&#64;0.05, ao: no single run with full context that was made like it" in said
    assert "Without one run to compare with: m kv:topk&#64;0.05, ao." in said


def test_routing_finds_the_full_context_that_the_rest_of_the_board_finds(tmp_path: Path) -> None:
    """Two dtypes of full context give it a variant, which the retrieving row does not have."""

    def known(more: Any) -> Any:
        def change(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
            more(head, rows)
            for row in rows:
                row["gold_kept"] = [1, 1]

        return change

    for dtype in ("bfloat16", "float16"):
        board_tree.run(tmp_path, "m", change=known(_inputs(args={"dtype": dtype})), datasets=("mc",))
    board_tree.run(
        tmp_path, "m", "rag@4k", change=known(_inputs(args={"dtype": "bfloat16"})), datasets=("mc",)
    )
    [line] = table(build(tmp_path, Options()), "router").lines
    assert line.labels[2] == "rag@4k"


def test_the_page_knows_which_tasks_of_two_runs_may_be_compared(tmp_path: Path) -> None:
    """Side by side stood scores of two judges, and an item without a score counted as zero."""

    def judged(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["tasks"]["icr_infbench_mc"]["judge"] = "another"

    board_tree.run(tmp_path / "r", "a", datasets=("mc", "qa"))
    board_tree.run(tmp_path / "r", "b", datasets=("mc", "qa"), prompt="id", change=judged)
    with Items(None, 1000) as items:
        board = build(tmp_path / "r", Options(), seen=items.add)
    text = page(board, items, board.tables)
    data = json.loads(re.findall(r"<script[^>]*application/json[^>]*>(.*?)</script>", text, re.S)[0])
    kinds: dict[str, set[int]] = {}
    for _, task, _, kind, _ in data["cells"]:
        kinds.setdefault(data["tasks"][task][0], set()).add(kind)
    assert {name: len(found) for name, found in kinds.items()} == {"icr_infbench_mc": 2, "icr_infbench_qa": 1}
    assert "a[t].kind === b[t]?.kind" in text and "s[3] == null ? null" in text


@pytest.mark.parametrize(
    ("option", "value"), [("--prefill", "nan"), ("--price-in", "-1"), ("--dollars-per-hour", "inf")]
)
def test_a_plan_takes_no_speed_or_price_that_is_none(option: str, value: str) -> None:
    with pytest.raises(SystemExit) as found:
        main(["plan", "--tasks", "icr_synth_rag_512", option, value])
    assert found.value.code == 2


def test_a_plan_of_nothing_says_so_and_one_of_gold_passages_what_it_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def empty(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        rows.clear()
        head["tasks"]["icr_infbench_mc"] |= {"n_scored": 0, "n_failed": 0, "n_truncated": 0}

    board_tree.run(tmp_path, "m", datasets=("mc",), change=empty)
    assert main(["plan", "--results", str(tmp_path)]) == 2
    assert "hold no items; name tasks" in capsys.readouterr().err
    assert main(["plan", "--tasks", "icr_synth_rag_512", "--settings", "gold@only"]) == 0
    assert "gold@only: prompt tokens of the whole context" in capsys.readouterr().out
