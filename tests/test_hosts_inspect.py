"""Inspect as a host: the same prompts, the same scores item by item, clustered errors, logs that open."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from hostkit import JUNK, right

pytest.importorskip("inspect_ai", reason="needs the extra [inspect]")

from inspect_ai import eval as evaluate
from inspect_ai.log import EvalLog, bundle_log_dir, read_eval_log
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from icr_tasks.benchmarks import catalog
from icr_tasks.errors import IcrError
from icr_tasks.harness.run import manager
from icr_tasks.harness.score import Scored, clustered_error
from icr_tasks.hosts import inspect

LIMIT = 40


def answer(doc: dict[str, Any], number: int, task: str) -> str:
    """Every kind of text an item can get."""
    gold = right(doc, task)
    forms = [
        gold,
        JUNK,
        f"<think>{gold}</think>{JUNK}",
        f"<think>no</think>{gold}",
        f"<think>{gold}",
        "",
        gold + " ",
    ]
    return forms[number % len(forms)]


def run(name: str, folder: Path, texts: dict[str, str], **options: Any) -> EvalLog:
    """Evaluate by Inspect with a model that knows each question's answer."""

    def say(messages: Any, *_: Any) -> ModelOutput:
        asked = messages[-1].text
        text = next(text for question, text in texts.items() if question in asked)
        out = ModelOutput.from_content("mockllm", text)
        out.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return out

    model = get_model("mockllm/model", custom_outputs=say, memoize=False)
    made = inspect.TASKS[name](**options)
    return evaluate(made, model=model, limit=LIMIT, log_dir=str(folder), display="none")[0]


def by_lm_eval(
    name: str, texts: dict[str, str], **metadata: Any
) -> dict[str, tuple[dict[str, float], dict[str, Any]]]:
    """(metrics, prompt digest) of each item as lm-eval's own evaluator gets them."""
    task = manager(metadata).load([name])["tasks"][name]
    task.build_all_requests(limit=LIMIT, apply_chat_template=True, chat_template=inspect.chat)
    for request in task.instances:
        request.resps = [texts[request.doc["question"]]]
    task.apply_filters()
    return {
        request.doc["id"]: (
            task.process_results(request.doc, [request.filtered_resps["none"]]),
            json.loads(request.args[0]),
        )
        for request in task.instances
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("icr_synth_rag_1k", {}),
        ("icr_synth_rag_1k", {"setting": "none"}),
        ("icr_synth_rag_1k", {"setting": "gold@only", "prompt": "id"}),
        ("icr_helmet_rag_nq_4k", {}),
        ("icr_infbench_mc", {}),
        ("icr_infbench_qa", {}),
        ("icr_longbench_v2", {}),
    ],
)
def test_item_scores_are_lm_evals(
    name: str,
    options: dict[str, Any],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    given: dict[str, Any] = {**options, "tokenizer": "none"}
    if "_synth_" not in name:
        monkeypatch.setenv("ICR_DATA_DIR", str(request.getfixturevalue("replica")))
        given["allow_partial"] = True
    docs = manager(given).load([name])["tasks"][name].dataset["test"][:LIMIT]
    first = {doc["question"]: doc for doc in docs}  # one question may stand in several contexts
    texts = {question: answer(doc, i, name) for i, (question, doc) in enumerate(first.items())}
    log = run(name.removeprefix("icr_"), tmp_path, texts, options=given)
    assert log.status == "success" and log.samples and len(log.samples) == len(docs)
    stock = by_lm_eval(name, texts, **given)
    for sample in log.samples:
        (score,) = (sample.scores or {}).values()
        metrics, digest = stock[str(sample.id)]
        assert score.value == metrics["score"]
        assert score.metadata is not None
        assert score.metadata["scores"] == {k: v for k, v in metrics.items() if k != "score_se"}
        assert score.metadata["prompt"]["sha256"] == digest["sha256"]
        assert [m.role for m in sample.messages][-2:] == ["user", "assistant"]
    found = log.results.scores[0].metrics  # type: ignore[union-attr]
    values = [metrics["score_se"] for metrics, _ in stock.values()]
    assert all(isinstance(v, Scored) for v in values) and 0 < sum(values) < len(values)
    assert found["mean"].value == pytest.approx(sum(values) / len(values))
    assert found["stderr"].value == pytest.approx(clustered_error(values), nan_ok=True)


def test_logs_open_and_bundle(tmp_path: Path) -> None:
    docs = manager({}).load(["icr_synth_rag_512"])["tasks"]["icr_synth_rag_512"].dataset["test"]
    texts = {doc["question"]: right(doc, "icr_synth_rag_512") for doc in docs}
    run("synth_rag_512", tmp_path / "logs", texts, setting="none")
    (path,) = (tmp_path / "logs").glob("*.eval")
    again = read_eval_log(str(path))
    assert again.eval.task == "icr_tasks/synth_rag_512" and again.eval.metadata is not None
    assert again.eval.metadata["icr"]["setting"]["text"] == "none"
    assert again.results is not None and again.results.scores[0].metrics["mean"].value == 1.0
    bundle_log_dir(log_dir=str(tmp_path / "logs"), output_dir=str(tmp_path / "view"))
    assert (tmp_path / "view" / "index.html").is_file()


def test_every_leaf_task_is_offered_by_entry_point() -> None:
    (found,) = entry_points(group="inspect_ai", name="icr_tasks")
    offered = found.load().TASKS
    assert {f"icr_{name}" for name in offered} == set(catalog.leaves())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"setting": "golden"}, "Did you mean 'gold'"),
        ({"setting": "kv:topk@0.05"}, "icr-hf or icr-vllm"),
        ({"setting": "rag@1k"}, "tokenizer"),
        ({"prompt_name": "idd"}, "Did you mean 'id"),
        ({"setting": "gold"}, "gold@only"),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(IcrError, match=says):
        inspect.TASKS["synth_rag_512"](**options)


def test_a_completion_prompt_is_refused(replica: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    with pytest.raises(IcrError, match="sends messages"):
        inspect.TASKS["helmet_rag_nq_4k"](prompt_name="official", options={"allow_partial": True})


def test_the_command(tmp_path: Path) -> None:
    """`inspect eval icr_tasks/...` in a process of its own, with a model that costs no look at a tokenizer."""
    code = (
        "from inspect_ai.model._providers.mockllm import MockLLM\n"
        "async def nothing(self, *args): pass\n"
        "MockLLM._ensure_default_usage = nothing\n"
        "import sys; from inspect_ai._cli.main import main; sys.argv[0] = 'inspect'; main()\n"
    )
    command = ["eval", "icr_tasks/synth_rag_512", "--model", "mockllm/model", "-T", "setting=gold@only"]
    command += ["--limit", "3", "--log-dir", str(tmp_path), "--display", "plain", "--log-format", "json"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = tmp_path.glob("*.json")
    log = read_eval_log(str(path))
    assert log.status == "success" and log.samples is not None and len(log.samples) == 3
    assert log.eval.task_args["setting"] == "gold@only"
