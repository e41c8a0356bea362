"""What results trees of other people hold: links, copies, wrong counts, odd times, endless names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import board_tree
import gatekit
import pytest
from board_tree import table

from icr_tasks.cli import main
from icr_tasks.leaderboard.board.build import build
from icr_tasks.leaderboard.board.tables import Options
from icr_tasks.leaderboard.board.write import markdown
from icr_tasks.leaderboard.ledgers.ledger import run_files
from icr_tasks.leaderboard.ledgers.load import find, load


def test_trees_of_links_are_read(tmp_path: Path) -> None:
    """A results folder that is a farm of links to a store, of folders or of files, is what it points to."""
    folder = board_tree.run(tmp_path / "store", "m", datasets=("mc",))
    farm = tmp_path / "farm"
    farm.mkdir()
    (farm / "m").symlink_to(tmp_path / "store" / "m")
    (farm / "again").symlink_to(farm)  # a loop
    assert len(load(farm)) == 1 and find(farm, folder.name).fingerprint == folder.name
    assert build(farm, Options()).n_runs == 1
    files = tmp_path / "files" / "run"
    files.mkdir(parents=True)
    for path in folder.iterdir():
        (files / path.name).symlink_to(path)
    assert len(run_files(tmp_path / "files")) == 1
    assert main(["board", str(farm)]) == 0


def test_baselines_and_strangers_are_found_in_trees_of_links(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gatekit.write(tmp_path / "store", gatekit.rows())
    farm = tmp_path / "farm"
    farm.mkdir()
    (farm / "org_base").symlink_to(next((tmp_path / "store").iterdir()))
    assert main(["baseline", "set", "main", str(farm)]) == 0
    assert "is not below results, where icr gate looks for it" in capsys.readouterr().err
    new = gatekit.write(tmp_path / "new", gatekit.rows(), model="org/new")
    again = ["gate", str(new), "--baseline", "main"]
    assert main([*again, "--results", str(farm)]) == 0
    assert main([*again, "--results", str(tmp_path / "none")]) == 4
    assert "name the folder that holds it with --results" in capsys.readouterr().out
    assert main(["baseline", "set", "other", str(farm), "--results", str(farm)]) == 0
    assert "is not below" not in capsys.readouterr().err
    assert main(["check", str(farm)]) == 0
    (next(farm.glob("*/*/*")) / "notes.txt").write_text("hello")
    assert main(["check", str(farm)]) == 1
    assert "notes.txt: not part of a results tree" in capsys.readouterr().out


def test_copies_of_a_run_have_labels_of_their_own(tmp_path: Path) -> None:
    def other(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["item"] += "x"

    board_tree.run(tmp_path / "a", "m", datasets=("mc",))
    board_tree.run(tmp_path / "b", "m", datasets=("mc",), change=other)
    lines = table(build(tmp_path, Options()), "settings").lines
    labels = {line.labels for line in lines}
    assert len(labels) == 2
    assert {label[2].partition(" in ")[2].partition("/")[0] for label in labels} == {"a", "b"}


def test_more_items_than_expected_are_marked(tmp_path: Path) -> None:
    def few(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["tasks"]["icr_infbench_mc"]["n_expected"] = 10

    board_tree.run(tmp_path, "m", datasets=("mc",), change=few)
    [line] = table(build(tmp_path, Options()), "settings").lines
    assert "40 items, 10 expected" in line.cells[0].reason


@pytest.mark.parametrize("value", [4e9, "2096-01-01", "yesterday", -5, True, [1]])
def test_a_time_that_cannot_be_does_not_decide_what_is_new(
    tmp_path: Path, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task version that is newer by its start alone: the run of the future is not it."""

    def when(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["started"] = value
        for sheet in head["tasks"].values():
            sheet["data_revision"] = "r0"

    board_tree.run(tmp_path, "odd", datasets=("mc",), change=when)
    board_tree.run(tmp_path, "m", datasets=("mc",), started=1.7e9)
    status = {row.model: row.cells["infbench", "mc", ""].status for row in build(tmp_path, Options()).rows}
    assert status == {"odd": "stale", "m": "complete"}
    main(["check", str(tmp_path)])
    out = capsys.readouterr()
    assert "is no time before tomorrow" in out.out + out.err


@pytest.mark.parametrize("value", [1.75e9, "2025-06-15T12:00:00"])
def test_times_as_numbers_and_as_text_count(tmp_path: Path, value: Any) -> None:
    def when(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["started"] = value
        for sheet in head["tasks"].values():
            sheet["data_revision"] = "r2"

    board_tree.run(tmp_path, "new", datasets=("mc",), change=when)
    board_tree.run(tmp_path, "m", datasets=("mc",), started=1.7e9)
    status = {row.model: row.cells["infbench", "mc", ""].status for row in build(tmp_path, Options()).rows}
    assert status == {"new": "complete", "m": "stale"}


def test_endless_names_are_shortened(tmp_path: Path) -> None:
    board_tree.run(tmp_path, "x" * 200 + "/" + "y" * 4800, datasets=("mc",))
    made = build(tmp_path, Options())
    text = markdown(made, {}, [], False)
    assert "y" * 200 not in text and "x" * 20 in text and "y" * 20 in text


def _samples(out: Path, text: str) -> None:
    name, stamp = "t", "2026-01-01T00-00-00"
    out.mkdir()
    results = {
        "configs": {name: {}},
        "versions": {name: 1},
        "config": {"model": "hf", "model_args": "pretrained=m"},
    }
    row = {
        "doc_id": 0,
        "doc": {"question": "QUESTION"},
        "arguments": {},
        "filtered_resps": ["x"],
        "filter": "none",
        "metrics": ["acc"],
        "acc": 1.0,
        "doc_hash": "1" * 64,
        "prompt_hash": "0" * 64,
        "target_hash": "0" * 64,
    }
    (out / f"results_{stamp}.json").write_text(json.dumps(results))
    (out / f"samples_{name}_{stamp}.jsonl").write_text(json.dumps(row).replace('"QUESTION"', text) + "\n")


@pytest.mark.parametrize("text", [r'"a \ud800 b"', r'"\udc00"', r'"\ud83d"'])
def test_half_a_surrogate_in_a_question_is_no_failed_metric(tmp_path: Path, text: str) -> None:
    _samples(tmp_path / "out", text)
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "res")]) == 0
    assert build(tmp_path / "res", Options()).n_items == 1


def test_nan_still_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _samples(tmp_path / "out", '"q"')
    [path] = (tmp_path / "out").glob("samples_*")
    path.write_text(path.read_text().replace('"acc": 1.0', '"acc": NaN'))
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "res")]) == 2
    assert "NaN or Infinity in place of a score" in capsys.readouterr().err
    path.write_text(path.read_text().replace("NaN", "1.0")[:-9] + "\n")
    shutil.rmtree(tmp_path / "res", ignore_errors=True)
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "res")]) == 2
    assert "not valid JSON" in capsys.readouterr().err


def test_prompts_of_other_words_under_one_name_are_not_ranked_together(tmp_path: Path) -> None:
    """The instruction's hash stands in the sheet of every task of ours, and decides."""
    from icr_tasks.benchmarks import catalog
    from icr_tasks.benchmarks.base import Prompt

    assert Prompt("p", "a {context} {question}").sha != Prompt("p", "b {context} {question}").sha
    assert catalog  # imported above: prompts are those of the catalogue

    def words(sha: str) -> Any:
        def change(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
            for sheet in head["tasks"].values():
                sheet["instruction_sha"] = sha

        return change

    board_tree.run(tmp_path, "a", datasets=("mc",), change=words("1"))
    board_tree.run(tmp_path, "b", datasets=("mc",), skill=-1, change=words("2"))
    lines = table(build(tmp_path, Options()), "settings").lines
    assert "different instruction text" in " ".join(c.extra for line in lines for c in line.cells)
