"""A study that is run again: edited and edited back, over other data, merged elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_sweep import write

from icr_tasks.cli import main


def ledgers(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((out / "results").rglob("run.json"))]


def counts(out: Path) -> list[int]:
    return [task["n_scored"] for run in ledgers(out) for task in run["tasks"].values()]


@pytest.mark.parametrize("more", [[], ["--shard", "1/1"]])
def test_a_study_edited_back_shows_its_own_numbers_again(more: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for limit in (4, 6, 4):
        assert main(["sweep", str(write(tmp_path, limit=limit)), *more]) == 0
        assert counts(out) == [limit]
