"""What results trees of other people hold: links, copies, wrong counts, odd times, endless names."""

from __future__ import annotations

import errno
import gzip
import json
import os
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


def test_an_error_that_is_not_known_is_no_failed_metric(tmp_path: Path) -> None:
    """Of one item, or items of one book, `score_se` is NaN in lm_eval's file: `--limit 1` is a stranger's first look."""
    _samples(tmp_path / "out", '"q"')
    [path] = (tmp_path / "out").glob("results_*")
    told = json.loads(path.read_text())
    told["results"] = {next(iter(told["configs"])): {"score,none": 1.0, "score_se,none": float("nan")}}
    path.write_text(json.dumps(told))
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


# ---- ledgers that somebody edited ----------------------------------------------------------------


def _rewritten(folder: Path, change: Any) -> None:
    path = folder / "items.jsonl.gz"
    rows = change([json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()])
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-7], "has 33 items, run.json counts 40"),
        (lambda rows: [*rows, rows[0]], "has 41 items, run.json counts 40"),
        (lambda rows: [*rows[:-1], rows[0]], "item mc-0-0 twice"),
    ],
)
def test_rows_that_run_json_does_not_count_are_no_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, words: str
) -> None:
    """A board showed the mean of what was left as complete, and counted an item twice."""
    board_tree.run(tmp_path, "good", datasets=("mc",))
    bad = board_tree.run(tmp_path, "bad", datasets=("mc",))
    _rewritten(bad, change)
    assert main(["board", str(tmp_path), "--view", "board"]) == 2
    said = capsys.readouterr()
    assert words in said.err and "`good`" in said.out and "`bad`" not in said.out
    for command in (
        ["compare", str(bad), str(tmp_path / "good")],
        ["gate", str(bad), "--baseline", str(tmp_path / "good")],
        ["export", "parquet", str(tmp_path), "-o", str(tmp_path.parent / "out")],
    ):
        assert main(command) == 2
        assert words in capsys.readouterr().err
    assert main(["check", str(tmp_path)]) == 1


@pytest.mark.parametrize("length", ["long", 4096, ["4k"]])
def test_a_length_that_is_none_costs_its_run_and_not_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], length: Any
) -> None:
    def odd(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["tasks"]["icr_infbench_mc"]["length"] = length

    board_tree.run(tmp_path, "good", datasets=("mc",))
    board_tree.run(tmp_path, "bad", datasets=("mc",), change=odd)
    assert main(["board", str(tmp_path), "--view", "board"]) == 2
    said = capsys.readouterr()
    assert "icr_infbench_mc has length" in said.err and "`good`" in said.out
    assert main(["check", str(tmp_path)]) == 1
    assert "which is no number of tokens" in capsys.readouterr().out


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was missing from the board, the check and the exports without a word."""
    board_tree.run(tmp_path, "good", datasets=("mc",))
    closed = board_tree.run(tmp_path, "closed", datasets=("mc",)).parent
    listed = os.scandir

    def refused(path: Any) -> Any:  # the rights of a user that tests may not have
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    for command in (["board"], ["check"], ["export", "parquet", "-o", str(tmp_path.parent / "out")]):
        assert main([*command, str(tmp_path)]) == 2
        assert f"{closed} cannot be read: Permission denied" in capsys.readouterr().err


def test_a_run_is_checked_from_within_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = gatekit.write(tmp_path, gatekit.rows())
    for where in (folder, folder.parent, tmp_path):
        monkeypatch.chdir(where)
        assert main(["check", "."]) == 0


@pytest.mark.parametrize("command", [["board"], ["publish", "--to", "site"], ["compare", "a"]])
def test_a_number_of_items_is_none_below_zero(command: list[str]) -> None:
    with pytest.raises(SystemExit) as found:
        main([*command, "b", "--limit" if command[0] == "compare" else "--html-items", "-3"])
    assert found.value.code == 2
