"""`icr check` names every defect of a results tree; `icr collect` every defect of lm-eval's files, and goes
on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gatekit
import orjson
import pytest

from icr_tasks.cli import main
from icr_tasks.leaderboard.ledgers.check import check

MC = "icr_infbench_mc"


def _tree(
    tmp_path: Path, change: Any = None, edit: Callable[[list[dict[str, Any]]], None] | None = None
) -> Path:
    gatekit.write(tmp_path / "r", gatekit.rows(tasks=(MC,)), model="org/other")
    rows = gatekit.rows(tasks=(MC,))
    if edit:
        edit(rows[MC])
    return gatekit.write(tmp_path / "r", rows, change=change)


def test_a_good_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _tree(tmp_path)
    assert main(["check", str(tmp_path / "r")]) == 0
    assert capsys.readouterr().out == "2 runs, 160 items: no problems\n"


def _fingerprint(head: dict[str, Any]) -> None:
    head["fingerprint"] = "0123456789ab"


def _task(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda head: head["tasks"][MC].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_fingerprint, "does not follow from fingerprint_inputs"),
        (_task(n_scored=81), "has n_scored 80, run.json says 81"),
        (_task(n_expected=99), "says complete with 80 of 99"),
        (_task(means={"acc": 0.999, "other": 0.1}), "another mean acc"),
        (_task(means={"acc_xfinder": 1.0}), "another mean acc_xfinder"),
        (_task(metric="acc_xfinder"), "no score 'acc_xfinder'"),
        (_task(data_revision=None), "unpinned data"),
        (_task(n_expected=None), "no n_expected"),
        (_task(status="fine"), "status 'fine'"),
    ],
)
def test_defects_of_run_json(tmp_path: Path, change: Any, words: str) -> None:
    folder = _tree(tmp_path, change)
    found = check(tmp_path / "r").problems[str(folder.relative_to(tmp_path / "r"))]
    assert any(words in text for text in found), found


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"score": {"acc": -1.0}}, ":3: acc is -1.0, not a score"),
        ({"score": {"acc": 40}}, ":3: acc is 40, not a score"),
        ({"score": {"acc": None}}, ":3: acc is None, not a score"),
        ({"cluster": None}, ":3: no cluster"),
        ({"target_hash": None}, ":3: no target_hash"),
        ({"item": "infbench-0-0"}, ":3: icr_infbench_mc item infbench-0-0 twice"),
        ({"target_hash": "e" * 16}, ":3: infbench-2-0 has another gold answer than in"),
    ],
)
def test_defects_of_rows(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    folder = _tree(tmp_path)
    path = folder.parents[1].parent / "org_other" / "full"
    path = next(path.rglob("items.jsonl.gz"))
    rows = [orjson.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    rows[2].update(values)
    path.write_bytes(gzip.compress(b"".join(orjson.dumps(row) + b"\n" for row in rows)))
    found = [text for texts in check(tmp_path / "r").problems.values() for text in texts]
    assert any(words in text for text in found), found


def test_defects_of_the_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _tree(tmp_path)
    (folder / "notes.txt").write_text("x")
    folder.rename(folder.with_name("0" * 12))
    assert main(["check", str(tmp_path / "r")]) == 1
    out = capsys.readouterr().out
    assert "notes.txt: not part of a results tree" in out and "belongs into org_base/full/" in out
    (folder.with_name("0" * 12) / "run.json").unlink()
    assert main(["check", str(tmp_path / "r"), "--json"]) == 1
    assert "without run.json" in json.dumps(json.loads(capsys.readouterr().out)["problems"])
    path = next((tmp_path / "r/org_other").rglob("items.jsonl.gz"))
    path.write_bytes(path.read_bytes()[:200])
    assert main(["check", str(tmp_path / "r")]) == 1 and "unreadable after line" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "none").mkdir()
    assert main(["check", str(tmp_path / "none")]) == 2


def test_secrets_and_paths_are_pointed_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(head: dict[str, Any]) -> None:
        head["fingerprint_inputs"]["model_args"] = {
            "api_key": "sk-1",
            "pretrained": "/home/me/m",
            "eos_token": "x",
        }

    _tree(tmp_path, change)
    assert main(["check", str(tmp_path / "r")]) == 1
    out = capsys.readouterr().out
    assert "api_key looks like a secret" in out and "path of one machine" in out and "eos_token" not in out
    assert "sk-1" not in out


def _sample(i: int, **more: Any) -> dict[str, Any]:
    hashes = {"doc_hash": f"{i:064x}", "prompt_hash": f"{i:064x}", "target_hash": f"{i:064x}"}
    return {
        "doc_id": i,
        "doc": {"id": f"i{i}", "cluster": f"i{i}"},
        "arguments": {},
        "filtered_resps": ["a"],
        "filter": "none",
        "metrics": ["acc"],
        "acc": 1.0,
        **hashes,
        **more,
    }


def _lm_eval(
    folder: Path, lines: list[str], *, model: str = "org/m", results: dict[str, Any] | None = None
) -> Path:
    folder.mkdir(parents=True)
    sheet = {
        "benchmark": "infbench",
        "dataset": "mc",
        "length": None,
        "metric": "acc",
        "n_expected": len(lines),
    }
    body = {
        "configs": {MC: {"metadata": {"icr": sheet}}},
        "config": {"model": "vllm", "model_args": {"pretrained": model}},
        "lm_eval_version": "0.4.13",
    }
    (folder / "results_2026-01-01T00-00-00.json").write_text(json.dumps(body if results is None else results))
    path = folder / f"samples_{MC}_2026-01-01T00-00-00.jsonl"
    path.write_text("".join(lines))
    return path


def _line(i: int, **more: Any) -> str:
    return json.dumps(_sample(i, **more)) + "\n"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (_line(1)[:40], "not valid JSON"),
        (_line(1, acc=float("nan")), "NaN or Infinity in place of a score"),
        (_line(1, acc=float("inf")), "NaN or Infinity in place of a score"),
        (_line(1, filter="other"), "two filters ['none', 'other']"),
        (_line(0), "doc_id 0 twice"),
        (_line(1, acc=-1.0), "acc is -1; negative marks are not scores"),
        (json.dumps({"doc_id": 1, "acc": 1.0}) + "\n", "doc_hash, metrics, prompt_hash, target_hash missing"),
        ("[1]\n", "a JSON object missing"),
    ],
)
def test_broken_samples_are_named_and_other_runs_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], second: str, words: str
) -> None:
    path = _lm_eval(tmp_path / "out/bad", [_line(0), second])
    _lm_eval(tmp_path / "out/good", [_line(0), _line(1)], model="org/good")
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")]) == 2
    shown = capsys.readouterr()
    assert f"{path}:2: " in shown.err and words in shown.err
    assert "**good**" in shown.out and "| 100.0 [34.2, 100.0] (2/2) |" in shown.out
    assert [p.parts[-4] for p in sorted((tmp_path / "r").rglob("run.json"))] == ["org_good"]


def test_other_result_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _lm_eval(tmp_path / "out/old", [], results={"results": {}, "lm_eval_version": "0.3.0"})
    _lm_eval(tmp_path / "out/list", [], results=[])  # type: ignore[arg-type]
    (tmp_path / "out/cut").mkdir()
    (tmp_path / "out/cut/results_2026-01-02T00-00-00.json").write_text('{"configs":')
    _lm_eval(tmp_path / "out/good", [_line(0)], model="org/good")
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")]) == 2
    shown = capsys.readouterr()
    assert "no task configs, written by lm_eval 0.3.0" in shown.err and "something else" in shown.err
    assert "the run did not finish writing" in shown.err and "**good**" in shown.out
    assert main(["collect", str(tmp_path / "out/old"), "-o", str(tmp_path / "x")]) == 2


def test_missing_metric_is_an_error_not_another_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = [_line(i, metrics=["acc_v1"], acc_v1=1.0) for i in range(2)]
    _lm_eval(tmp_path / "out", other)
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")]) == 2
    out = capsys.readouterr().out
    assert f"samples_{MC}_2026-01-01T00-00-00.jsonl:1: no row has the metric 'acc', only acc_v1" in out
    assert "| – (2/2) |" in out
    stored = json.loads(next((tmp_path / "r").rglob("run.json")).read_text())
    assert stored["tasks"][MC]["status"] == "error"


def test_no_pretrained_gives_no_random_model_name(tmp_path: Path) -> None:
    for name in ("hdjskafl", "qpwoeiru"):  # what lm-eval makes up when model_args names no model
        _lm_eval(tmp_path / "out" / name, [_line(0)])
        path = next((tmp_path / "out" / name).glob("results_*"))
        body = json.loads(path.read_text())
        path.write_text(
            json.dumps({**body, "config": {"model": "dummy", "model_args": ""}, "model_name": name})
        )
    main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")])
    assert [p.parts[-4] for p in (tmp_path / "r").rglob("run.json")] == ["dummy"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda head: head.update(fingerprint_inputs=None), "fingerprint_inputs by name missing"),
        (_task(n_scored="80"), f"n_scored of {MC} as a number missing"),
        (_task(n_expected="80"), f"n_expected of {MC} as a number missing"),
        (_task(means=[1]), f"means of {MC} by metric missing"),
        (_task(data_revision={"x": 1}), "not a run (unhashable type: 'dict')"),
    ],
)
def test_an_edited_run_is_one_line_and_the_others_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, words: str
) -> None:
    """Each ended check, and most the gate, with a traceback."""
    folder = _tree(tmp_path, change)
    report = check(tmp_path / "r")
    (found,) = [text for texts in report.problems.values() for text in texts]
    assert words in found and str(folder / "run.json") in found and report.runs == 2 and report.items >= 80
    if "missing" in words:
        other = next((tmp_path / "r").glob("org_other/*/*"))
        assert main(["gate", str(folder), "--baseline", str(other)]) == 2
        assert words in capsys.readouterr().err
