"""Traps in lm-eval's output files, found by running it: each must end in a named error or in the right
number, never in a wrong one. Written by hand in lm-eval's format, collected and shown through the command
line."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import icr_tasks
from icr_tasks.cli import main
from icr_tasks.engines.answers import AnswerStore
from icr_tasks.engines.identity import working_tree
from icr_tasks.leaderboard.board.build import Board, build
from icr_tasks.leaderboard.board.tables import Options, Shown
from icr_tasks.leaderboard.ledgers import ledger

STAMP = "2026-01-01T00-00-00"
QA, MC = "icr_infbench_qa", "icr_infbench_mc"


def sample(i: int, metric: str = "acc", value: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "doc_id": i,
        "doc": {"id": f"i{i}", "cluster": f"b{i // 2}"},
        "target": "A",
        "arguments": {},
        "resps": [["a"]],
        "filtered_resps": ["a"],
        "filter": "none",
        "metrics": [metric],
        metric: value,
        "doc_hash": f"{i:064x}",
        "prompt_hash": f"{i:064x}",
        "target_hash": f"{i:064x}",
        **more,
    }


def evaluation(
    out: Path,
    tasks: dict[str, list[dict[str, Any]] | None],
    *,
    args: Any = "pretrained=org/m",
    sheet: dict[str, Any] | None = None,
    n_expected: int | None = None,
    stamp: str = STAMP,
    **more: Any,
) -> Path:
    """One lm_eval output folder; a task with None was run without --log_samples."""
    out.mkdir(parents=True, exist_ok=True)
    configs = {}
    for task, rows in tasks.items():
        dataset = task.rsplit("_", 1)[1]
        icr = {
            "benchmark": "infbench",
            "dataset": dataset,
            "metric": "acc" if dataset == "mc" else "f1",
            "metric_version": 1,
            "prompt": "paper",
        }
        icr |= {"n_expected": n_expected or len(rows or []) or 4} | (sheet or {})
        configs[task] = {"metadata": {"version": "1-A", "icr": icr}, "generation_kwargs": {}}
        if rows is not None:
            (out / f"samples_{task}_{stamp}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    body = {
        "results": {task: {"acc,none": 0.123, "acc_stderr,none": 0.001} for task in tasks},
        "groups": {"icr_infbench": {"acc,none": 0.999}},
        "configs": configs,
        "config": {"model": "vllm", "model_args": args},
        "versions": dict.fromkeys(tasks, "1-A"),
        "lm_eval_version": "0.4.13",
        "n-samples": {
            task: {"original": n_expected or 4, "effective": len(rows or [])} for task, rows in tasks.items()
        },
        **more,
    }
    (out / f"results_{stamp}.json").write_text(json.dumps(body))
    return out


def board(tmp_path: Path, *, code: int = 0) -> Board:
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")]) == code
    return build(tmp_path / "r", Options())


def only(made: Board) -> Shown:
    [line] = next(t for t in made.tables if t.name == "settings").lines
    return line.cells[0]


def test_output_that_was_never_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """lm_eval exits 0 when it could not write; so a missing or empty folder must not collect to an empty
    success."""
    assert main(["collect", str(tmp_path / "gone"), "-o", str(tmp_path / "r")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["collect", str(tmp_path / "empty"), "-o", str(tmp_path / "r")]) == 2
    assert "--output_path and --log_samples" in capsys.readouterr().err and not (tmp_path / "r").exists()


def test_random_model_name(tmp_path: Path) -> None:
    """Without pretrained= lm_eval makes a name up, anew in each run: the same run must stay one run."""
    for name in ("xkqjzpwv", "bmwyrtfh"):
        evaluation(tmp_path / "out" / name, {MC: [sample(0)]}, args="", model_name=name)
    assert [r.model for r in board(tmp_path).rows] == ["vllm"]


def test_git_hash_of_the_folder_is_no_identity(tmp_path: Path) -> None:
    """It is that of whatever folder lm_eval was started in: recorded, but two folders do not make two
    runs."""
    for i, commit in enumerate(("abc1234", None)):
        evaluation(
            tmp_path / "out" / str(i), {MC: [sample(0)]}, git_hash=commit, stamp=f"2026-01-0{i + 1}T00-00-00"
        )
    assert len(board(tmp_path).rows) == 1


def test_without_log_samples_a_run_is_listed_and_not_ranked(tmp_path: Path) -> None:
    evaluation(tmp_path / "out", {MC: None})
    made = board(tmp_path)
    assert only(made).value is None and "--log_samples" in only(made).reason
    assert not next(t for t in made.tables if t.name == "settings").lines[0].ranked


def test_limit_is_partial(tmp_path: Path) -> None:
    evaluation(tmp_path / "out", {MC: [sample(i) for i in range(9)]}, n_expected=12)
    made = board(tmp_path)
    [row] = made.rows
    [cell] = row.cells.values()
    assert cell.status == "limited" and cell.effect is not None and cell.effect.n == 9
    assert "9 of 12 items" in str(cell.limited or cell.reason or made.notes)


def test_stock_task_under_limit_is_partial(tmp_path: Path) -> None:
    """A task that is not ours states no size; lm_eval's own count of the whole set does."""
    evaluation(
        tmp_path / "out", {MC: [sample(i) for i in range(3)]}, n_expected=12, sheet={"n_expected": None}
    )
    path = next((tmp_path / "out").glob("results_*"))
    body = json.loads(path.read_text())
    body["configs"][MC]["metadata"] = {}
    path.write_text(json.dumps(body))
    [row] = board(tmp_path).rows
    [cell] = row.cells.values()
    assert (cell.status, cell.reason) == ("limited", "")


def test_two_filters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation(tmp_path / "out", {MC: [sample(0), sample(1, filter="strict")]})
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")]) == 2
    assert f"samples_{MC}_{STAMP}.jsonl:2: two filters" in capsys.readouterr().err


def test_the_configured_metric_or_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows carry any metric as a key; a missing one must not be replaced by another that happens to be
    there."""
    evaluation(tmp_path / "out", {MC: [sample(i, "exact_match") for i in range(4)]})
    cell = only(board(tmp_path, code=2))
    assert cell.value is None and "no row has the metric 'acc', only exact_match" in cell.reason
    assert f"samples_{MC}_{STAMP}.jsonl:1: no row has the metric 'acc'" in capsys.readouterr().err


def test_negative_sentinel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RULER-style tasks write -1 for "not this length": averaged, it would lower the score."""
    evaluation(tmp_path / "out", {MC: [sample(0), sample(1, value=-1.0)]})
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")]) == 2
    assert f"samples_{MC}_{STAMP}.jsonl:2: acc is -1" in capsys.readouterr().err


def test_changed_scoring_is_stale(tmp_path: Path) -> None:
    """The config stores the source of the top function only; metric_version is kept by hand and decides."""
    evaluation(tmp_path / "out/a", {MC: [sample(0)]}, args="pretrained=org/old", date=1.0)
    evaluation(
        tmp_path / "out/b",
        {MC: [sample(0)]},
        args="pretrained=org/new",
        sheet={"metric_version": 2},
        date=2.0,
    )
    lines = {
        line.labels[0]: line for line in next(t for t in board(tmp_path).tables if t.name == "settings").lines
    }
    assert lines["org/new"].ranked and not lines["org/old"].ranked
    assert lines["org/old"].cells[0].reason == "stale: metric version 1, now 2"


def test_metadata_reaches_every_task(tmp_path: Path) -> None:
    """--metadata is merged into all tasks of a call: that is how a setting gets there, and they stay one
    run."""
    setting = {"text": "rag@4k", "kind": "rag", "method": None, "amount": 4096, "params": {}}
    evaluation(tmp_path / "out", {MC: [sample(0)], QA: [sample(0, "f1", 0.5)]}, sheet={"setting": setting})
    [row] = board(tmp_path).rows
    assert row.setting["text"] == "rag@4k" and {c[1] for c in row.cells} == {"mc", "qa"}


def _yamls() -> list[Path]:
    return [p for p in icr_tasks.tasks_dir().rglob("*") if p.suffix == ".yaml" or p.name.endswith("_yaml")]


def test_functions_in_yamls_are_absolute(tmp_path: Path) -> None:
    """`!function x.f` loads x.py beside the YAML under its path as name: relative imports fail and modules
    load twice."""
    found = [name for path in _yamls() for name in re.findall(r"!function\s+(\S+)", path.read_text())]
    assert found and all(name.startswith("icr_tasks.") for name in found)


def test_names_collide_with_nothing_upstream() -> None:
    """A later include path overrides a built-in task of that name without a word; infinitebench and
    longbench2 exist."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: node.value)
    sheets = [yaml.load(path.read_text(), Loader) for path in _yamls() if path.suffix == ".yaml"]
    names = [sheet.get("task") if isinstance(sheet.get("task"), str) else sheet["group"] for sheet in sheets]
    assert len(names) == len(set(names)) > 40 and all(name.startswith("icr_") for name in names)


def test_answers_of_two_models_never_mix(tmp_path: Path) -> None:
    """lm_eval's --use_cache has no model in its key; our store is one file a fingerprint."""
    one = AnswerStore(tmp_path, {"model": "a", "dtype": "bfloat16"})
    two = AnswerStore(tmp_path, {"model": "b", "dtype": "bfloat16"})
    assert one.path != two.path


def test_numbers_lm_eval_printed_are_not_used(tmp_path: Path) -> None:
    """Its group error is wrong for unequal sizes (0.020 for 0.037): means and errors come from items
    alone."""
    rows = [sample(i, value=float(i < 6)) for i in range(8)]
    evaluation(tmp_path / "out", {MC: rows})
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")]) == 0
    cell = only(build(tmp_path / "r", Options()))
    assert cell.value == pytest.approx(75.0) and (cell.n, cell.low is not None) == (8, True)
    text = "".join(p.read_text() for p in (tmp_path / "r").rglob("run.json"))
    assert "0.123" not in text and "0.999" not in text


def test_join_is_by_item_not_by_position(tmp_path: Path) -> None:
    """doc_id is a position: with --limit or another order it names other items."""
    forward = [sample(i, value=float(i % 3 == 0)) for i in range(12)]
    backward = [dict(row, doc_id=11 - i) for i, row in enumerate(forward)][::-1]
    evaluation(tmp_path / "out/a", {MC: forward}, args="pretrained=org/a")
    evaluation(tmp_path / "out/b", {MC: backward}, args="pretrained=org/b")
    made = board(tmp_path)
    from icr_tasks.leaderboard.board.rows import difference

    paired = difference(made.rows[0], made.rows[1], [("infbench", "mc", "")])
    assert not isinstance(paired, str) and not paired.change.any() and paired.effect().mean == 0


def test_newest_of_two_results_counts_once(tmp_path: Path) -> None:
    evaluation(tmp_path / "out", {MC: [sample(0, value=0.0)]})
    evaluation(tmp_path / "out", {MC: [sample(0, value=1.0)]}, stamp="2026-01-02T00-00-00")
    assert only(board(tmp_path)).value == 100.0
    [folder] = [f for f, _ in ledger.runs(tmp_path / "r")]
    assert len(list(ledger.items(folder))) == 1


def test_a_changed_working_tree_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm_eval's git_hash names a commit also when files were edited; our tasks log `git describe --dirty`
    beside it."""

    def git(*args: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *args]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    monkeypatch.chdir(tmp_path)
    assert working_tree.__wrapped__() is None
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "first")
    clean = working_tree.__wrapped__()
    assert clean and git("rev-parse", "HEAD").startswith(clean)
    (tmp_path / "file").write_text("two")
    assert working_tree.__wrapped__() == f"{clean}-dirty"
    ours = {"git": f"{clean}-dirty", "versions": {"icr_tasks": "0.1.0"}}
    evaluation(tmp_path / "out", {MC: [sample(0)]}, git_hash=clean, sheet=ours)
    evaluation(tmp_path / "stock", {MC: [sample(0)]}, git_hash=clean, args="pretrained=org/n")
    assert main(["collect", str(tmp_path / "out"), str(tmp_path / "stock"), "-o", str(tmp_path / "r")]) == 0
    heads = {head["model"]["id"]: head for _, head in ledger.runs(tmp_path / "r")}
    assert (heads["org/m"]["git"], heads["org/n"]["git"]) == (f"{clean}-dirty", clean)
    assert (
        heads["org/m"]["versions"]["icr_tasks"] == "0.1.0"
        and heads["org/m"]["versions"]["lm_eval"] == "0.4.13"
    )
