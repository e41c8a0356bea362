"""A board and `icr compare` say the same about the same two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gatekit
import pytest

from icr_tasks.leaderboard.board.build import Board, build
from icr_tasks.leaderboard.board.tables import Options, Shown
from icr_tasks.leaderboard.ledgers.load import load
from icr_tasks.leaderboard.pairs.compare import compare
from icr_tasks.leaderboard.pairs.joined import pair

KV = "kv:snapkv@4096"


def _cell(board: Board, name: str, column: str) -> Shown:
    [table] = [t for t in board.tables if t.name == name]
    [line] = [x for x in table.lines if x.labels[1] == KV]
    return line.cells[table.columns.index(column)]


def _tree(root: Path, rows: gatekit.Rows) -> dict[str, Any]:
    """Full context and a compressed run; what `icr compare` says about them, by endpoint."""
    text = {"text": KV, "kind": "kv", "method": "snapkv", "amount": 4096, "params": {}}
    gatekit.write(root, gatekit.rows())
    gatekit.write(root, rows, setting=KV, change=lambda run: run.update(setting=text))
    full, kv = sorted(load(root), key=lambda run: run.setting != "full")
    return {line.name: line.delta for line in compare(pair(full, kv)).lines}


@pytest.mark.parametrize("same", [True, False])
def test_answers_that_are_all_the_same_have_changed_nothing(tmp_path: Path, same: bool) -> None:
    """Byte for byte: no error. Other answers of the same score: that of one flipped cluster."""
    rows = gatekit.rows()
    for row in [] if same else [r for part in rows.values() for r in part]:
        row["resp_hash"] = row["resp_hash"][::-1]
    found, board = _tree(tmp_path, rows), build(tmp_path, Options())
    for name, view, column in (
        ("helmet_rag", "use-org-base-helmet_rag", "all"),
        ("longbench_v2", "use-org-base-longbench_v2", "2k to 4k"),
        ("longbench_v2", "drop", "longbench_v2"),
        ("suite", "drop", "avg"),
    ):
        cell, effect = _cell(board, view, column), found[name]
        assert (cell.value, cell.low, cell.high) == pytest.approx(effect.in_points())
        assert (cell.low == cell.high == 0) is same
    assert ("[+0, +0]" in _cell(board, "drop", "avg").extra) is same


def test_what_differs_is_the_same_number_on_both(tmp_path: Path) -> None:
    found, board = _tree(tmp_path, gatekit.rows(1, right=0.6)), build(tmp_path, Options())
    cell = _cell(board, "drop", "avg")
    assert (cell.value, cell.low, cell.high) == pytest.approx(found["suite"].in_points())


def test_an_item_without_a_cluster_is_its_own_beside_others_that_have_one(tmp_path: Path) -> None:
    """Not one cluster of all that lack a label: on the board as in the table of `icr collect`."""
    from icr_tasks.leaderboard.ledgers.summary import Tally, score

    rows = gatekit.rows()
    for row in rows["icr_longbench_v2"][::2]:
        row["cluster"] = None
    folder = gatekit.write(tmp_path, rows)
    [run] = load(folder)
    tally = Tally()
    tally.add("icr_longbench_v2", run.head["tasks"]["icr_longbench_v2"], rows["icr_longbench_v2"])
    effect = score([tally.tasks(run.head["tasks"])["icr_longbench_v2"]])
    [table] = [t for t in build(tmp_path, Options(), views=["board"]).tables]
    cell = table.lines[0].cells[table.columns.index("LongBench-v2")]
    assert effect is not None and effect.clusters == 120
    assert (cell.value, cell.low, cell.high) == pytest.approx(effect.in_points())


def test_the_table_of_collect_prints_what_the_board_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of a lopsided interval was a `±` that reached beyond 100, and one cluster had an interval."""
    from icr_tasks.leaderboard.board.render import text
    from icr_tasks.leaderboard.ledgers.ledger import runs
    from icr_tasks.leaderboard.ledgers.summary import table

    rows = gatekit.rows(right=0.5)
    for row in rows["icr_longbench_v2"]:
        row["score"] = {"acc": 1.0}
    rows["icr_infbench_mc"] = rows["icr_infbench_mc"][:1]
    gatekit.write(tmp_path, rows)
    said = table(list(runs(tmp_path)))
    for line in build(tmp_path, Options(), views=["settings", "lengths"]).tables:
        for cell in line.lines[0].cells:
            if cell.runs and len(cell.runs) == 1:
                assert f" {text(cell)} (" in said, (text(cell), said)
    assert " 100.0 [" in said
