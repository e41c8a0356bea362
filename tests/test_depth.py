"""Depth: bins of the gold passage's position, over the same datasets in each; a view that is left out says
why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import board_tree
import numpy as np
import pytest
from board_tree import cells, table

from icr_tasks.leaderboard.board.build import build
from icr_tasks.leaderboard.board.depths import depth_bins
from icr_tasks.leaderboard.board.rows import columns_of
from icr_tasks.leaderboard.board.tables import Options
from icr_tasks.leaderboard.board.write import markdown


def many(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """HotpotQA with a position of its own for nearly every item and a low level; NQ with neat ones and a high
    level; no effect of depth in either."""
    rng = np.random.default_rng(5)
    for k, row in enumerate(rows):
        hotpot = "hotpotqa" in row["task"]
        row["cluster"] = f"{row['task']}-{k // 3}"
        row["keys"]["depth"] = (
            round(float(rng.uniform(0, 1)), 3) if hotpot else (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)[k % 6]
        )
        row["score"] = (
            {"subem": float(k % (5 if hotpot else 2) == 0)} if hotpot else {"subem": float(k // 6 % 10 > 0)}
        )


def test_many_positions_are_binned(tmp_path: Path) -> None:
    board_tree.run(tmp_path, "m", "full", datasets=("hotpotqa", "nq"), change=many)
    made = build(tmp_path, Options())
    t = table(made, "depth")
    assert 2 <= len(t.columns) <= 5 and all(c.value is not None for c in t.lines[0].cells)


def test_no_effect_of_depth_is_invented(tmp_path: Path) -> None:
    """Datasets of other levels stand in every bin with the same weight: a flat model is flat."""
    board_tree.run(tmp_path, "m", "full", datasets=("hotpotqa", "nq"), change=many)
    values = [c.value for c in table(build(tmp_path, Options()), "depth").lines[0].cells]
    assert max(values) - min(values) < 15  # the levels are 20 and 90


@pytest.mark.parametrize(
    "neat",
    [
        (0.0, 0.5, 1.0),
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        (0.0, 0.25, 0.5, 0.75, 1.0),
        (0.0, 0.33, 0.67, 1.0),
        (0.0, 0.211, 0.4, 0.611, 0.8, 1.0),
    ],
)
def test_neat_positions_keep_their_names_and_their_items(tmp_path: Path, neat: tuple[float, ...]) -> None:
    def change(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for k, row in enumerate(rows):
            row["keys"]["depth"] = neat[k % len(neat)]
            row["cluster"] = f"c{k}"

    board_tree.run(tmp_path, "m", "full", datasets=("nq",), change=change)
    made = build(tmp_path, Options())
    bins = depth_bins(made.rows, columns_of(made.rows))
    assert not isinstance(bins, str) and len(bins.columns) == 3 and not bins.left_out
    n = [bins.score(made.rows[0], k).n for k in range(len(bins.bounds))]  # type: ignore[union-attr]
    assert sum(n) == 180  # every item stands in one bin
    assert len(n) >= min(len(neat), 4)


def test_a_dataset_with_one_position_is_left_out_and_named(tmp_path: Path) -> None:
    def change(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if "hotpotqa" in row["task"]:
                row["keys"]["depth"] = 0.5

    board_tree.run(tmp_path, "m", "full", datasets=("hotpotqa", "nq"), change=change)
    t = table(build(tmp_path, Options()), "depth")
    assert any("hotpotqa 4k has fewer than" in note for note in t.notes)
    alone = board_tree.run(tmp_path / "alone", "m", "full", datasets=("nq",))
    assert alone.is_dir()
    only = cells(table(build(tmp_path / "alone", Options()), "depth"), "m")
    assert {n: c.value for n, c in only.items()} == {n: c.value for n, c in cells(t, "m").items()}


def test_a_view_that_is_left_out_says_why(tmp_path: Path) -> None:
    board_tree.run(tmp_path, "m", "full", datasets=("mc",))
    made = build(tmp_path, Options())
    assert made.left_out["depth"] == "InfiniteBench: no item says where its gold passage stands"
    assert made.left_out["drop"].startswith("no compressed run")
    assert made.left_out["use"] == "m: no setting beside full context"
    text = markdown(made, {}, [], False)
    assert "## Not shown" in text and "- `depth`: InfiniteBench: no item says" in text
    from icr_tasks.registry import VIEWS

    shown = {t.name.partition("-")[0] for t in made.tables} | {
        "lengths" if "length" in t.name else "" for t in made.tables
    }
    assert set(VIEWS) <= shown | set(made.left_out)
