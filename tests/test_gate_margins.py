"""Margins of single benchmarks, and what the gate says that its data can see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gatekit
import pytest

from icr_tasks.leaderboard.ledgers.load import load_run
from icr_tasks.leaderboard.pairs.gate import INCONCLUSIVE, PASS, gate
from icr_tasks.leaderboard.pairs.joined import Pairs, pair

MC = "icr_infbench_mc"


def _pairs(
    root: Path, lost: int, of: int | None = None, tasks: tuple[str, ...] = (MC,), expected: int = 80
) -> Pairs:
    """A run that is right everywhere, and one that lost some of the first items of each task; of the first `of`."""

    def known(head: dict[str, Any]) -> None:
        for sheet in head["tasks"].values():
            sheet["n_expected"] = expected

    runs = []
    for model in ("org/base", "org/new"):
        rows = {name: items[:of] for name, items in gatekit.rows(tasks=tasks).items()}
        for items in rows.values():
            for n, row in enumerate(items):
                right = model == "org/base" or n >= lost
                row["score"] = {metric: float(right) for metric in row["score"]}
                row["resp_hash"] = f"{n + 1:08x}{len(model):08x}"
        runs.append(load_run(gatekit.write(root, rows, model=model, change=known)))
    return pair(*runs)


def test_the_margin_of_the_one_benchmark_there_is_counts(tmp_path: Path) -> None:
    """The suite is the benchmark then; its margin was ignored without a word."""
    pairs = _pairs(tmp_path, lost=4)
    assert gate(pairs).verdict != PASS
    found = gate(pairs, margins={"infbench": 0.4})
    assert (found.verdict, found.endpoints[0].margin) == (PASS, 0.4)
    assert gate(pairs, margins={"infbench": 0.4, "suite": 0.3}).endpoints[0].margin == 0.3


@pytest.mark.parametrize("tasks", [(MC,), (MC, "icr_longbench_v2")])
def test_a_margin_of_a_benchmark_that_is_not_there_is_noted(tmp_path: Path, tasks: tuple[str, ...]) -> None:
    found = gate(_pairs(tmp_path, lost=0, tasks=tasks), margins={"loong_fin": 0.4, "infbench": 0.3})
    said = [note for note in found.notes if note.startswith("margin of")]
    assert said == ["margin of Loong-Fin: these runs have no task of it"]


def test_the_plans_line_sees_no_more_than_the_endpoint(tmp_path: Path) -> None:
    """Changes that are all the same have no spread: the line said that 20 items see 0.0, beside an MDE of 13.0."""
    found = gate(_pairs(tmp_path, lost=0, of=20))
    (said,) = [note for note in found.notes if note.startswith("plan: ")]
    assert said.startswith("plan: suite (InfiniteBench): 20 items see 13.0 in 8 of 10 cases")
    assert said.endswith("; the margin is 2.0") and "cheapest" not in said
    (said,) = [n for n in gate(_pairs(tmp_path / "b", lost=1, of=20)).notes if n.startswith("plan: ")]
    assert "20 items see 13.0 in" in said


@pytest.mark.parametrize(
    ("of", "words"), [(1, "one cluster only"), (2, "no margin below 100 can be settled by all 2")]
)
def test_a_margin_that_the_command_refuses_is_not_advised(tmp_path: Path, of: int, words: str) -> None:
    """It was "widen the margin to 384.5"."""
    found = gate(_pairs(tmp_path, lost=0, of=of, expected=of))
    assert found.verdict == INCONCLUSIVE and words in found.reason and "widen" not in found.reason
    assert (of > 1) == any(note.startswith("plan: ") for note in found.notes)
