"""A study that is run again: edited and edited back, over other data, merged elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_sweep import write

from icr_tasks.cli import main
from icr_tasks.engines import identity


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


def test_a_cell_made_with_other_data_is_stale_and_scored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data" / "infinitebench" / "longbook_qa_eng.jsonl"
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COUNTING_LOG", str(tmp_path / "calls"))
    asked = lambda: len((tmp_path / "calls").read_text().splitlines())  # noqa: E731

    def rows(*names: str) -> None:
        data.parent.mkdir(parents=True, exist_ok=True)
        each = [
            {"id": i, "context": f"{n} left.", "input": "Who?", "answer": [n]} for i, n in enumerate(names)
        ]
        data.write_text("".join(json.dumps(row) + "\n" for row in each))

    rows("Anna", "Bob")
    path = write(tmp_path, tasks=["icr_infbench_qa"], prompts=["paper"], metadata={"allow_partial": True})
    assert main(["sweep", str(path)]) == 0 and asked() == 2
    rows("Anna", "Cornelius")
    assert main(["status", str(path), "--check"]) == 1 and "made with other data" in capsys.readouterr().out
    assert main(["sweep", str(path)]) == 0 and asked() == 3  # what did not change is not asked again
    assert "was made with other data" in capsys.readouterr().err
    assert main(["status", str(path), "--check"]) == 0
    data.unlink()  # only the ledger is here: nothing is known
    assert main(["status", str(path), "--check"]) == 0
    assert main(["sweep", str(path)]) == 0 and asked() == 3


def test_shards_of_other_versions_are_not_asked_anew_by_a_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COUNTING_LOG", str(tmp_path / "calls"))
    path, home = write(tmp_path, out=None), tmp_path / "home"
    parts = [str(tmp_path / f"part{i}") for i in (1, 2)]
    merge = ["sweep", str(path), "-o", str(home), "--merge"]
    with monkeypatch.context() as patch:
        patch.setattr(identity, "versions", lambda: {"vllm": "0.32.0"})
        for i, part in enumerate(parts, 1):
            assert main(["sweep", str(path), "-o", part, "--shard", f"{i}/2"]) == 0
    calls = (tmp_path / "calls").read_text()
    assert main([*merge, *parts]) == 2 and (tmp_path / "calls").read_text() == calls
    assert "ran under other versions" in capsys.readouterr().err and not list(home.rglob("*.jsonl"))
    with monkeypatch.context() as patch:
        patch.setattr(identity, "versions", lambda: {"vllm": "0.32.0"})
        assert main([*merge, *parts]) == 0 and (tmp_path / "calls").read_text() == calls
    assert main([*merge, *parts]) == 0 and (tmp_path / "calls").read_text() == calls  # all is scored
