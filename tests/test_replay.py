"""Answers from a log score the same again, and a log of something else is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_contract import lm_eval, results

from icr_tasks.cli import main
from icr_tasks.cli.score import score
from icr_tasks.engines import replay
from icr_tasks.errors import IcrError
from icr_tasks.harness.run import manager
from icr_tasks.leaderboard.ledgers.collect import collect

TASKS = ("icr_synth_rag_512", "icr_synth_rag_1k")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("logged")
    done = lm_eval("oracle", TASKS, out, {"setting": "gold@only", "prompt": "id"}, "--limit", "6")
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_replay_through_lm_eval_keeps_scores_and_identity(logged: Path, tmp_path: Path) -> None:
    command = (
        "icr-replay",
        TASKS,
        tmp_path / "again",
        {},
        "--limit",
        "6",
        "--model_args",
        f"samples={logged}",
    )
    done = lm_eval(*command)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = results(logged), results(tmp_path / "again")
    for task in TASKS:
        assert {k: v for k, v in before[task].items() if k != "alias"} == {
            k: v for k, v in after[task].items() if k != "alias"
        }
    [(_, first)], [(_, second)] = (
        collect([logged], tmp_path / "a"),
        collect([tmp_path / "again"], tmp_path / "b"),
    )
    assert second["model"]["id"] == first["model"]["id"] == "oracle"
    assert second["setting"]["text"] == "gold@only" and second["prompt"] == "id"
    read = [sorted((tmp_path / x).rglob("items.jsonl.gz"))[0].read_bytes() for x in "ab"]
    assert read[0] == read[1]


def _task(logged: Path, **metadata: Any) -> Any:
    return manager({"samples": str(logged), "pretrained": "x", **metadata}).load([TASKS[0]])["tasks"][
        TASKS[0]
    ]


def test_settings_come_from_the_log_and_contradictions_are_refused(logged: Path) -> None:
    assert str(_task(logged).options.setting) == "gold@only"
    with pytest.raises(IcrError, match="was logged with setting 'gold@only', not 'full'"):
        _task(logged, setting="full")


def test_changed_missing_and_cut_off_logs(logged: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(logged, copy)
    path = next(copy.rglob(f"samples_{TASKS[0]}_*"))
    rows = [json.loads(line) for line in path.open()]
    lm = replay.ReplayLM(str(logged))
    task = _task(logged)
    task.build_all_requests(limit=7)
    with pytest.raises(IcrError, match=r"no answer for item .* \(6 items logged\)"):
        lm.generate_until(task.instances)
    rows[0]["doc_hash"] = "0" * 64
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(IcrError, match="is not the item that was answered"):
        replay.ReplayLM(str(copy)).generate_until(task.instances[:1])
    path.write_text(path.read_text()[:-30])
    replay.load.cache_clear()
    with pytest.raises(IcrError, match=r":6: not valid JSON"):
        replay.ReplayLM(str(copy))
    with pytest.raises(IcrError, match="does not exist"):
        replay.ReplayLM(str(tmp_path / "none"))
    with pytest.raises(IcrError, match="no likelihoods"):
        lm.loglikelihood([])


def test_predictions_file(tmp_path: Path) -> None:
    task = manager({"tokenizer": "none"}).load([TASKS[0]])["tasks"][TASKS[0]]
    rows = [{"id": item.id, "prediction": f"The answer is: {item.answers[0]}"} for item in task.items]
    path = tmp_path / "preds.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    replay.load.cache_clear()
    again = _task(path)
    again.build_all_requests()
    for request, text in zip(
        again.instances, replay.ReplayLM(str(path)).generate_until(again.instances), strict=True
    ):
        request.resps.append(text)
    again.apply_filters()
    scores = [again.process_results(i.doc, [i.filtered_resps["none"]])["subem"] for i in again.instances]
    assert scores == [1.0] * 100


SIX = [{"id": str(n), "prediction": f"The answer is: {n}"} for n in range(6)]


def _file(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    replay.load.cache_clear()
    return path


def test_ids_are_never_guessed_and_both_readers_say_the_same(
    replica: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """HELMET's ids are <question>-<variant>: six predictions with ids 0 to 5 are no 600 answers."""
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    path, name = _file(tmp_path / "six.jsonl", SIX), "icr_helmet_rag_nq_4k"
    task = manager({"samples": str(path), "allow_partial": True}).load([name])["tasks"][name]
    with pytest.raises(IcrError, match=rf"6 unknown, {len(task.items)} missing ids for {name}"):
        task.build_all_requests(limit=3)
    command = ["score", "--task", name, "--predictions", str(path), "--allow-partial-data"]
    assert main(command) == 2
    assert f"6 unknown, {len(task.items)} missing ids for {name}" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["", "mc-"])
def test_infinitebench_numbers_mean_its_items_in_both_readers(
    prefix: str, replica: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    name = "icr_infbench_mc"
    items = manager({"tokenizer": "none", "allow_partial": True}).load([name])["tasks"][name].items
    rows = [
        {"id": prefix + i.id.removeprefix("mc-"), "prediction": i.answers[0], "task": "longbook_choice_eng"}
        for i in items
    ]
    log = replay.Log(_file(tmp_path / "mc.jsonl", rows))
    log.check(name, [i.id for i in items])
    assert [log.find(name, {"id": i.id})["text"] for i in items] == [i.answers[0] for i in items]
    found = score(name, tmp_path / "mc.jsonl", allow_partial=True)
    assert found["n"] == len(items) and found["n_failed"] == 0


def test_predictions_of_several_models_and_doubled_ones(tmp_path: Path) -> None:
    item = manager({"tokenizer": "none"}).load([TASKS[0]])["tasks"][TASKS[0]].items[0]
    rows = [{"id": item.id, "prediction": name, "model": name} for name in ("a", "b")]
    path = _file(tmp_path / "two.jsonl", rows)
    with pytest.raises(IcrError, match="several models; choose one with --model .*: a, b"):
        replay.ReplayLM(str(path))
    assert replay.ReplayLM(str(path), model="b").log.find(TASKS[0], {"id": item.id})["text"] == "b"
    with pytest.raises(IcrError, match="Did you mean 'b'|unknown model in the predictions 'c'"):
        replay.ReplayLM(str(path), model="c")
    path = _file(tmp_path / "doubled.jsonl", [{"id": item.id, "prediction": "x"}] * 2)
    with pytest.raises(IcrError, match="has two predictions"):
        replay.ReplayLM(str(path))
