"""Costs: an item and a right answer, from the engine and never from replays; both axes of a plot from the same
items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import board_tree
import pytest
from board_tree import cells, table

from icr_tasks.cli import main
from icr_tasks.leaderboard.board import costs
from icr_tasks.leaderboard.board.build import build
from icr_tasks.leaderboard.board.rows import columns_of
from icr_tasks.leaderboard.board.tables import Options


def measured(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for name, sheet in head["tasks"].items():
        n = sum(r["task"] == name for r in rows)
        sheet |= {
            "n_timed": n,
            "seconds": {"wall": 2.0 * n, "engine": 50.0 * n},
            "tokens": {"cached": 10 * n, "reasoning": 7 * n},
            "devices": {"4 x NVIDIA H100": n},
            "usd": 0.02 * n,
        }


def test_seconds_dollars_and_tokens_of_an_item_and_a_right_answer(tmp_path: Path) -> None:
    board_tree.run(tmp_path, "m", datasets=("mc",), change=measured)
    made = build(tmp_path, Options())
    found = cells(table(made, "cost"), "m")
    score = made.rows[0].cells["infbench", "mc", ""].effect.mean  # type: ignore[union-attr]
    assert found["wall s / item"].value == 2.0 and found["device s / item"].value == 8.0
    assert found["cached tokens / item"].value == 10 and found["reasoning tokens / item"].value == 7
    assert found["USD / item"].value == pytest.approx(0.02)
    assert found["device s / right answer"].value == pytest.approx(8.0 / score)
    assert found["USD / right answer"].value == pytest.approx(0.02 / score)
    assert "seconds" not in found  # the clock of lm_eval, which replays run as well
    assert "Devices: 4 x NVIDIA H100." in table(made, "cost").notes


def test_what_nobody_measured_is_a_dash(tmp_path: Path) -> None:
    board_tree.run(tmp_path, "m", datasets=("mc",), change=measured)
    board_tree.run(tmp_path, "old", datasets=("mc",))
    found = cells(table(build(tmp_path, Options()), "cost"), "old")
    assert found["wall s / item"].value is None and found["wall s / item"].reason == "not measured"


def test_both_axes_come_from_the_same_items(tmp_path: Path) -> None:
    """The same answers with and without HELMET in the run: the same score, at the same tokens."""
    x = []
    for name, datasets in (("with", ("nq", "mc", "qa")), ("without", ("mc", "qa"))):
        board_tree.run(tmp_path / name, "m", datasets=datasets)
        row = build(tmp_path / name, Options()).rows[0]
        out = [c for c in columns_of([row]) if not c[2]]
        x.append((costs.macro(row, out, "prompt"), row.average(out).effect.mean))  # type: ignore[union-attr]
    assert x[0] == x[1] and x[0][0] == pytest.approx(120_000 - 19.5)


def test_collect_counts_what_engines_measured(tmp_path: Path) -> None:
    """Two requests side by side: latencies overlap, wall seconds add up; a served model's usage reaches the
    ledger. A third told nothing of itself: a mean is over those that did."""
    name, stamp = "icr_synth_rag_512", "2026-01-01T00-00-00"
    sheet = {"benchmark": "synth", "dataset": "rag", "length": "512", "metric": "subem", "n_expected": 3}
    results = {
        "configs": {name: {"metadata": {"icr": sheet}}},
        "versions": {name: "1-A"},
        "config": {"model": "icr-api", "model_args": {"model": "m"}},
    }
    usage = {"tokens_in": 400, "tokens_cached": 100, "tokens_out": 12, "tokens_reasoning": 5, "usd": 0.001}
    rows = []
    for i in range(3):
        digest = {"icr": 1, "sha256": f"{i:064x}"}
        if i < 2:
            digest |= {
                "timing": {"engine": 3.0, "wall": 1.5},
                "device": "2 x NVIDIA H100",
                "usage": usage,
            }
        rows.append(
            {
                "doc_id": i,
                "doc": {"id": f"q{i}", "cluster": f"q{i}"},
                "arguments": {"gen_args_0": {"arg_0": json.dumps(digest, separators=(",", ":"))}},
                "resps": [["x"]],
                "filtered_resps": ["x"],
                "filter": "none",
                "metrics": ["subem"],
                "subem": 1.0,
                "doc_hash": f"{i:064x}",
                "prompt_hash": "0" * 64,
                "target_hash": "0" * 64,
            }
        )
    out = tmp_path / "out"
    out.mkdir()
    (out / f"results_{stamp}.json").write_text(json.dumps(results))
    (out / f"samples_{name}_{stamp}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["collect", str(out), "-o", str(tmp_path / "results")]) == 0
    row = build(tmp_path / "results", Options()).rows[0]
    [cell] = row.cells.values()
    assert cell.cost["wall"] == 1.5 and cell.cost["device"] == 3.0
    assert cell.cost["usd"] == 0.001 and cell.cost["reasoning"] == 5 and cell.cost["cached"] == 100
    assert cell.cost["prompt"] == 400 and cell.cost["output"] == 12
