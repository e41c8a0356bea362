"""Answers from a log score the same again, and a log of something else is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_contract import lm_eval, results

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
