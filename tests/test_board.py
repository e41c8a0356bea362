"""icr board: views, gaps, ties, drops, filters and formats over a simulated results tree, checked against
plain numpy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import board_tree
import numpy as np
import pytest
from board_tree import cells, scores, table

from icr_tasks.cli import main
from icr_tasks.leaderboard.board.build import Board, build
from icr_tasks.leaderboard.board.tables import Options
from icr_tasks.leaderboard.ledgers import ledger

GOLDEN = Path(__file__).parent / "golden" / "board.md"


def test_golden(tree: Path, tmp_path: Path) -> None:
    assert main(["board", str(tree), "-o", str(tmp_path)]) == 0
    text = (tmp_path / "board.md").read_text()
    if os.environ.get("ICR_UPDATE_GOLDEN"):  # after a wanted change; read the diff
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    assert main(["board", str(tree), "-o", str(tmp_path / "again")]) == 0
    for path in tmp_path.glob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), (
            f"{path.name} is not deterministic"
        )


def test_cells_and_averages_are_those_of_the_items(tree: Path, board: Board) -> None:
    by_length = cells(table(board, "length-helmet_rag-nq"), "org/base-7b")
    means = [
        np.mean(list(scores(tree, "org/base-7b", "full", f"icr_helmet_rag_nq_{n}").values()))
        for n in ("4k", "16k", "64k")
    ]
    for column, mean in zip(("4k", "16k", "64k"), means, strict=True):
        assert by_length[column].value == pytest.approx(100 * mean)
    assert by_length["avg"].value == pytest.approx(100 * np.mean(means))
    every = cells(table(board, "settings"), "org/base-7b")
    assert every["avg"].value == pytest.approx(
        np.mean([every[c].value for c in ("mc", "qa", "longbench_v2")])
    )
    for (
        t
    ) in board.tables:  # every value has N and, but for costs, an interval around it; every dash has a reason
        for line in t.lines:
            for cell in line.cells:
                if cell.value is None:
                    assert cell.reason
                elif cell.kind == "length" or t.name == "use-both":  # tokens; shares of the same items
                    continue
                elif cell.kind != "number":
                    assert cell.n and cell.low <= cell.value <= cell.high


def test_questions_are_clusters_over_depths_and_lengths(tree: Path, board: Board) -> None:
    """Three depths of a question are not three independent items: the interval is that of 20 questions."""
    effect = (
        next(r for r in board.rows if r.name == "org/base-7b" and r.setting["text"] == "full")
        .cells["helmet_rag", "nq", "4k"]
        .effect
    )
    assert effect is not None and (effect.n, effect.clusters) == (60, 20)
    found = scores(tree, "org/base-7b", "full", "icr_helmet_rag_nq_4k")
    means = np.array(list(found.values())).reshape(20, 3).mean(1)
    assert effect.se == pytest.approx(means.std(ddof=1) / np.sqrt(20))


def test_a_gap_is_a_dash_with_a_reason_and_spoils_its_averages(board: Board) -> None:
    row = cells(table(board, "length-helmet_rag-nq"), "org/ours-7b-step-200")
    assert row["4k"].value is not None and row["16k"].value is None and row["avg"].value is None
    assert row["16k"].reason == "no run has it" and row["avg"].reason == "no average: nq 16k missing"
    assert cells(table(board, "board"), "org/base-7b", "rag@32k")["suite"].value is None


def test_partial_and_stale_rows_stand_apart_with_the_command_that_completes_them(
    tree: Path, board: Board, tmp_path: Path
) -> None:
    nq = table(board, "length-helmet_rag-nq")
    assert {line.labels[0] for line in nq.lines if not (line.ranked or line.reference)} == {"org/old"}
    assert cells(nq, "org/old")["4k"].reason == "stale: task version 0, now 1"
    hotpot = table(board, "length-helmet_rag-hotpotqa")
    partial = cells(hotpot, "org/partial")
    assert partial["4k"].reason == "partial: 45/60 items" and partial["avg"].value is None
    main(["board", str(tree), "-o", str(tmp_path)])
    opened = {o["row"]: o for o in json.loads((tmp_path / "board.json").read_text())["open"]}
    call = opened["org/ours-7b-step-200 full, ao"]
    assert call["open"] == ["icr_helmet_rag_nq_16k missing"]
    assert "--tasks icr_helmet_rag_nq_16k --model icr-vllm --model_args dtype=bfloat16" in call["command"]
    assert """--metadata '{"setting":"full","prompt":"ao"}'""" in call["command"]
    assert "org/base-7b full, ao" not in opened


def test_partial_flag_ranks_them_and_says_so(tree: Path) -> None:
    found = cells(table(build(tree, Options(), partial=True), "length-helmet_rag-hotpotqa"), "org/partial")
    assert (
        found["avg"].value is not None and "partial" in found["avg"].reason and "45/60" in found["4k"].reason
    )


def test_ties_are_paired(tree: Path, board: Board) -> None:
    """A row is tied when the paired difference to the best is within noise, whatever the two intervals look
    like."""
    from icr_tasks.leaderboard.board.rows import difference

    t = table(board, "length-helmet_rag-nq")
    marks = {line.labels[:2]: line.cells[-1].mark for line in t.lines if line.ranked}
    best = next(key for key, mark in marks.items() if mark == "best")
    rows = {(r.name, r.setting["text"]): r for r in board.rows}
    columns = [("helmet_rag", "nq", n) for n in ("4k", "16k", "64k")]
    assert set(marks.values()) == {"best", "tied", ""}
    for key, mark in marks.items():
        if key != best and rows[key].average(columns).usable:
            paired = difference(rows[key], rows[best], columns)
            assert not isinstance(paired, str) and (mark == "tied") == (paired.effect().p >= 0.05)


def test_foreign_tasks_do_not_enter_the_suite(tmp_path: Path) -> None:
    """One model with one more benchmark must not turn everybody's average into a dash."""

    def foreign(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["tasks"]["icr_longbench_v2"] |= {"benchmark": "gsm8k", "dataset": "gsm8k"}

    board_tree.run(tmp_path, "a", datasets=("mc", "qa"))
    board_tree.run(tmp_path, "b", datasets=("mc", "qa", "all"), change=foreign)
    made = build(tmp_path, Options())
    assert all(line.cells[-1].value is not None for line in table(made, "settings").lines)
    assert table(made, "board").columns == ["InfiniteBench"] and table(made, "settings-gsm8k").columns == [
        "gsm8k"
    ]


def test_rows_with_other_items_are_not_compared(tmp_path: Path) -> None:
    def other(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        rows[0]["item"] = "another"

    board_tree.run(tmp_path, "a", datasets=("mc",))
    board_tree.run(tmp_path, "b", datasets=("mc",), skill=-1, change=other)
    found = cells(table(build(tmp_path, Options()), "settings"), "b")["mc"]
    assert found.mark == "" and "other items" in found.extra


def test_drop_and_difference_of_drops(tree: Path, board: Board) -> None:
    t = table(board, "drop")
    base, ours = cells(t, "org/base-7b", "kv:topk@0.05"), cells(t, "org/ours-7b-step-300", "kv:topk@0.05")

    def mean(model: str, setting: str) -> float:
        return float(np.mean(list(scores(tree, model, setting, "icr_infbench_mc", "acc").values())))

    full, small = mean("org/base-7b", "full"), mean("org/base-7b", "kv:topk@0.05")
    assert base["mc"].value == pytest.approx(100 * (small - full))
    assert base["mc"].extra.startswith(f"{100 * (small - full) / full:+.1f} %")
    last = t.columns[-1]
    assert last == "vs drop of org/base-7b" and base[last].reason == "reference"
    assert ours[last].value == pytest.approx(ours["avg"].value - base["avg"].value)
    other = build(tree, Options(base="org/ours-7b-step-300"), views=["drop"])
    assert cells(other.tables[0], "org/base-7b", "kv:topk@0.05")[
        "vs drop of org/ours-7b-step-300"
    ].value == pytest.approx(-ours[last].value)


def test_rag_view_and_setting_blocks(board: Board) -> None:
    assert [line.labels[1] for line in table(board, "rag").lines] == ["full", "rag@32k", "rag@4k"]
    blocks = [
        line.labels[1].split(":")[0].split("@")[0] for line in table(board, "settings").lines if line.ranked
    ]
    assert blocks == sorted(blocks, key=["full", "none", "kv", "rag"].index)


def test_benchmarks_with_prompts_of_their_own_share_a_row(tmp_path: Path) -> None:
    board_tree.run(tmp_path, "m", prompt="ao", datasets=("nq",))
    board_tree.run(tmp_path, "m", prompt="id", datasets=("nq",))
    board_tree.run(tmp_path, "m", prompt="paper", datasets=("mc", "qa"))
    found = table(build(tmp_path, Options()), "board")
    assert {line.labels[2] for line in found.lines} == {"ao + paper", "id + paper"}
    assert all(line.cells[-1].value is not None for line in found.lines)


def test_look_alike_rows_are_told_apart(tmp_path: Path) -> None:
    def half(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["fingerprint"], head["fingerprint_inputs"]["model_args"]["dtype"] = "f" * 12, "float16"

    board_tree.run(tmp_path, "m", datasets=("mc",))
    board_tree.run(tmp_path, "m", datasets=("mc",), change=half)
    labels = {line.labels for line in table(build(tmp_path, Options()), "settings").lines}
    assert labels == {("m", "full", "ao dtype=bfloat16"), ("m", "full", "ao dtype=float16")}


def test_checkpoints_are_rows(tmp_path: Path) -> None:
    for revision in ("step-1", "step-2", "step-3"):
        board_tree.run(tmp_path, "m", revision=revision, datasets=("nq",))
    assert main(["board", str(tmp_path), "-o", str(tmp_path / "b")]) == 0
    assert {line.labels[0] for line in table(build(tmp_path, Options()), "board").lines} == {
        "m@step-1",
        "m@step-2",
        "m@step-3",
    }
    drawn = sorted(p.name for p in (tmp_path / "b").glob("trend-*"))
    assert drawn == ["trend-m-full-ao.dark.svg", "trend-m-full-ao.svg"]


def test_the_drop_is_against_the_full_run_of_the_same_engine(tmp_path: Path) -> None:
    """One model evaluated by two engines has two full rows; a compressed run belongs to its own engine's."""

    def other(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["fingerprint"], head["fingerprint_inputs"]["engine"] = "e" * 12, "icr-hf"

    board_tree.run(tmp_path, "m", datasets=("mc",), skill=-2.0, change=other)
    board_tree.run(tmp_path, "m", datasets=("mc",))
    board_tree.run(tmp_path, "m", "kv:topk@0.05", datasets=("mc",))
    [line] = table(build(tmp_path, Options()), "drop").lines
    means = {}
    for folder in [*(tmp_path / "m" / "full").iterdir(), *(tmp_path / "m" / "kv_topk@0.05").iterdir()]:
        rows = list(ledger.items(folder))
        means[folder.parent.name, folder.name == "e" * 12] = np.mean([r["score"]["acc"] for r in rows])
    drop = means["kv_topk@0.05", False] - means["full", False]
    assert line.cells[0].value == pytest.approx(100 * drop)
    assert means["full", True] != means["full", False]
