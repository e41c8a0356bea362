"""From task options to results: the judge inside lm_eval, what is saved when it fails, and the command that
continues."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint
from test_contract import lm_eval, results

from icr_tasks.errors import IcrError
from icr_tasks.harness import saving
from icr_tasks.harness.grading import Answer, Graders, grade
from icr_tasks.harness.options import Options
from icr_tasks.harness.run import manager

pytest.importorskip("openai")
TASK = "icr_loong_fin"
DATA = {"allow_partial": True, "questions_file": "loong_replica.jsonl", "tokenizer": "none"}
SECRET = "sk-do-not-show-me"


@pytest.fixture
def loong(replica: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs the task in this process with an oracle's answers and returns (task, metrics by
    item)."""
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    monkeypatch.setattr(saving, "_state", saving._Waiting())

    def run(**metadata: Any) -> tuple[Any, dict[str, dict[str, float]]]:
        task = manager({**DATA, "judge_store": "off", **metadata} if metadata else DATA).load([TASK])[
            "tasks"
        ][TASK]
        task.build_all_requests()
        for request in task.instances:
            request.resps.append(request.doc["answers"][0])
        task.apply_filters()
        return task, {
            i.doc["id"]: task.process_results(i.doc, [i.filtered_resps["none"]]) for i in task.instances
        }

    return run


def test_verdicts_become_metrics_and_are_broken_down_by_level_and_set(loong: Any) -> None:
    """Level 1 gets 100, level 2 has no verdict, the rest 40."""
    levels: dict[str, str] = {}

    def reply(prompt: str) -> str:
        level = next(v for k, v in levels.items() if k in prompt)
        return {"1": "Rating: [[100]]", "2": "no idea"}.get(level, "Rating: [[40]]")

    task, _ = loong()
    levels.update({item.question: str(item.keys["level"]) for item in task.items})
    with FakeEndpoint(reply) as server:
        task, scores = loong(judge_base_url=server.url, judge_model="fake")
        assert "We kindly ask you to review" in server.prompts[0] and server.prompts[0].startswith(
            "[Question]\n\n\nWe kindly"
        )
        assert len(server.prompts[0]) < 8000  # no documents
    n = {level: sum(v == level for v in levels.values()) for level in "1234"}
    judged = task.sheet["judged"]
    assert judged["by"]["level"]["1"] == {
        "n": n["1"],
        "judge": 1,
        "judge_zero": 1,
        "judge_official": 1,
        "perfect": 1,
        "judge_parsed": 1,
        "judge_failed": 0,
    }
    assert judged["by"]["level"]["2"] == {"n": n["2"], "judge_zero": 0, "judge_parsed": 0, "judge_failed": 1}
    assert set(judged["by"]) == {"level", "set"} and sum(judged["failed"].values()) == n["2"]
    for item in task.items:
        row, level = scores[item.id], str(item.keys["level"])
        assert (
            ("judge" in row) == (level != "2")
            and row["judge_failed"] == (level == "2")
            and row["answered"] == 1
        )
    assert set(task.aggregation()) >= {m for row in scores.values() for m in row}
    mean = sum(r["judge"] for r in scores.values() if "judge" in r) / sum(
        "judge" in r for r in scores.values()
    )
    zero = sum(r["judge_zero"] for r in scores.values()) / len(scores)
    assert mean == pytest.approx((n["1"] + 0.4 * (n["3"] + n["4"])) / (len(scores) - n["2"])) and zero < mean


def test_without_a_judge_the_sheet_says_why_and_nobody_is_called(loong: Any) -> None:
    task, scores = loong()
    assert all(set(row) == {"answered", "truncated", "unfinished"} for row in scores.values())
    assert task.sheet["reasons"]["judge"] == "no judge: set judge_base_url and judge_model"
    assert not saving._state.errors


def test_a_judge_that_stops_half_way_gives_no_score_and_the_error_waits(loong: Any, tmp_path: Path) -> None:
    calls: list[str] = []

    def fault(prompt: str, nth: int) -> Any:
        calls.append(prompt)
        return (401, json.dumps({"error": {"message": f"expired {SECRET}"}}), {}) if len(calls) > 5 else None

    with FakeEndpoint(lambda p: "Rating: [[50]]", fault=fault) as server:
        options = {
            "judge_base_url": server.url,
            "judge_model": "f",
            "judge_api_key": SECRET,
            "judge_concurrency": 1,
        }
        task, scores = loong(**options, judge_store=str(tmp_path / "v"))
        assert all("judge" not in row and row["answered"] == 1 for row in scores.values())
        assert "refuses the key" in task.sheet["reasons"]["judge"] and len(saving._state.errors) == 1
        saved = json.dumps(task.config.metadata, default=str)
        assert SECRET not in saved and task.config.metadata["judge_api_key"] == "***"
    with FakeEndpoint(lambda p: "Rating: [[50]]") as server:
        task, scores = loong(judge_base_url=server.url, judge_model="f", judge_store=str(tmp_path / "v"))
        assert server.calls == len(scores) - 5 and task.sheet["judged"]["cached"] == 5
        assert all(row["judge"] == 0.5 for row in scores.values())


def test_predict_only_calls_nobody(loong: Any) -> None:
    with FakeEndpoint(lambda p: "Rating: [[50]]") as server:
        task, _ = loong(judge_base_url=server.url, judge_model="f")
        before = server.calls
        task.override_metric("bypass")
        task.apply_filters()
        assert server.calls == before


def test_wrong_options_stop_before_anything_is_generated(loong: Any) -> None:
    with pytest.raises(IcrError, match="[Dd]id you mean 'judge_"):
        loong(judge_modell="x", judge_base_url="http://x/v1")
    with pytest.raises(IcrError, match="unknown option 'xfinder_url'"):
        Graders.parse({"xfinder_url": "http://x/v1"})
    with pytest.raises(IcrError, match="did you mean 'judge_model'"):
        Options.parse({"jugde_model": "x"})
    assert (
        Options.parse(
            {"model": "x", "base_url": "x", "max_tokens": 1, "num_concurrent": 4, "batch_size": 1}
        ).graders
        == Graders()
    )


def test_nested_secrets_are_not_saved_and_still_sent(loong: Any) -> None:
    with FakeEndpoint(lambda p: "Rating: [[50]]") as server:
        task, _ = loong(
            judge_base_url=server.url,
            judge_model="f",
            judge_extra={"proxy_token": SECRET},
            judge_api_key_env="PATH",
        )
        assert server.bodies[0]["proxy_token"] == SECRET
    assert (
        SECRET not in json.dumps(task.config.metadata, default=str)
        and task.config.metadata["judge_api_key_env"] == "PATH"
    )


def _tracker(saved: list[str]) -> Any:
    class Tracker:
        output_path: Path | None = Path("out")

        def save_results_aggregated(self, results: Any, samples: Any = None) -> None:
            saved.append("results")

        def save_results_samples(self, task_name: str, samples: Any) -> None:
            saved.append(task_name)

    for name in ("save_results_aggregated", "save_results_samples"):
        setattr(Tracker, name, saving.watch(getattr(Tracker, name), name))
    return Tracker()


@pytest.mark.parametrize("logged", [True, False])
def test_the_error_comes_after_the_last_save(
    logged: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(saving, "_state", saving._Waiting())
    saving.add(IcrError("judge gone", exit_code=3), lambda folder: f"continue from {folder}")
    saved: list[str] = []
    tracker, found = (
        _tracker(saved),
        {
            "configs": {"icr_a": {}, "b": {}},
            "results": {},
            "versions": {},
            "n-shot": {},
            "higher_is_better": {},
        },
    )
    with pytest.raises(saving.Incomplete) as info:
        tracker.save_results_aggregated(results=found, samples={"icr_a": [], "b": []} if logged else None)
        tracker.save_results_samples(task_name="icr_a", samples=[])
        tracker.save_results_samples("b", [])
    assert saved == (["results", "icr_a", "b"] if logged else ["results"])
    assert (
        info.value.code == info.value.exit_code == 3
        and isinstance(info.value, IcrError)
        and isinstance(info.value, SystemExit)
    )
    assert f"judge gone\ncontinue from {'out' if logged else None}" in capsys.readouterr().err
    tracker.save_results_aggregated(results=found, samples=None)  # raised once, not for ever


def test_paper_rubric_and_dict_golds(tmp_path: Path) -> None:
    boxes = "".join(f"\\boxed{{Criterion {i}: {v}}}" for i, v in ((1, 1), (2, 0), (3, 1)))
    doc = {"id": "1", "question": "Which?", "keys": {"level": 1, "set": 2}}
    answers = [Answer(doc, {"instruction": "Read.", "gold": {"a": [1, "x"]}}, "an answer")]
    with FakeEndpoint(lambda p: boxes) as server:
        graders = Graders.parse(
            {"judge_base_url": server.url, "judge_model": "f", "judge_rubric": "paper", "judge_store": "off"}
        )
        grades = grade("loong", graders, answers)
        assert (
            "[Correct Answer]: {'a': [1, 'x']}" in server.prompts[0]
        )  # as Python prints it: the official judge's form
    assert grades.metrics["1"] == {
        "judge": 2 / 3,
        "judge_zero": 2 / 3,
        "perfect": 0,
        "judge_parsed": 1,
        "judge_failed": 0,
        "judge_reasoning": 1,
        "judge_grounding": 0,
        "judge_correctness": 1,
    }
    assert (
        grades.sheet["judge"]["rubric"] == "paper-1" and grade("infbench_sum", graders, answers).metrics == {}
    )


def test_an_error_waits_for_the_results_of_its_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation that nobody saved (no output path) leaves nothing to a later one in the same process."""

    class Tracker:
        output_path = "out"

        def save_results_aggregated(self, results: Any, samples: Any) -> None: ...

        def save_results_samples(self, task_name: str, samples: Any) -> None: ...

    for name in ("save_results_aggregated", "save_results_samples"):
        setattr(Tracker, name, saving.watch(getattr(Tracker, name), name))
    monkeypatch.setattr(saving, "_state", saving._Waiting())
    for task in ("a", "b"):
        saving.add(IcrError(f"judge of {task} gone"), lambda folder: "", task)
    tracker = Tracker()
    saving.begin("a")  # a second run of `a`, this time with its judge
    tracker.save_results_aggregated(results={"configs": {"a": {}}, "results": {}}, samples={"a": []})
    tracker.save_results_samples(task_name="a", samples=[])
    assert not saving._state.errors, "neither the first run's error nor that of `b`"


def test_lm_eval_exits_3_after_saving_and_the_printed_command_works(replica: Path, tmp_path: Path) -> None:
    """The real process twice: judge away, then the very command it printed, judge back at the same
    address."""
    with FakeEndpoint(lambda p: "Rating: [[80]]") as server:
        url = server.url
    env = {
        "ICR_DATA_DIR": str(replica),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "ICR_JUDGE_API_KEY": SECRET,
    }
    metadata = {**DATA, "judge_base_url": url, "judge_model": "fake", "judge_retries": 0}
    run = lm_eval("oracle", (TASK,), tmp_path / "out", metadata, "--limit", "4", env=env)
    assert run.returncode == 3, run.stderr[-3000:]
    assert "does not answer" in run.stderr and "Traceback" not in run.stderr and "answered" in run.stdout
    assert results(tmp_path / "out")[TASK]["answered,none"] == 1.0
    assert len(next((tmp_path / "out").rglob("samples_*.jsonl")).read_text().splitlines()) == 4
    printed = next(line for line in run.stderr.splitlines() if line.startswith("  lm_eval "))
    words = shlex.split(printed)
    assert words[0] == "lm_eval" and "icr-replay" in words
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    with FakeEndpoint(lambda p: "Rating: [[80]]", port=port) as server:
        command = [sys.executable, "-P", "-m", "lm_eval", *words[1:]]
        again = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **env}, timeout=400
        )
        assert again.returncode == 0, again.stderr[-3000:]
        assert server.calls == 4 and server.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert results(tmp_path / "out-graded")[TASK]["judge,none"] == pytest.approx(0.8)
    files = "".join(
        p.read_text() for folder in ("out", "out-graded") for p in (tmp_path / folder).rglob("*.json*")
    )
    assert SECRET not in files + run.stdout + run.stderr + again.stdout + again.stderr
    assert SECRET.encode() not in (tmp_path / "cache" / "icr-tasks" / "verdicts.sqlite").read_bytes()


def test_unreachable_advice_without_logged_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    from icr_tasks.harness.grading import advice

    config = SimpleNamespace(
        metadata={"judge_model": "m", "judge_base_url": "http://***@h/v1", "judge_api_key": "***"}, task=TASK
    )
    say = advice(SimpleNamespace(config=config, limit=None))  # type: ignore[arg-type]
    assert "--log_samples" in say(None) and "samples=" not in say(None)
    assert "judge_base_url, judge_api_key as before" in say("out") and 'api_key": ' not in say("out")
