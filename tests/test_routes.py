"""Settings `route:NAME@k`: a second prompt for the items whose first answer asks for it, through lm_eval's command
line and on real engines."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from lm_eval.api.model import LM
from test_contract import lm_eval

from icr_tasks.cli import main
from icr_tasks.engines import session
from icr_tasks.errors import IcrError
from icr_tasks.harness import run
from icr_tasks.registry import ROUTES
from icr_tasks.settings import Setting

TASK = "icr_synth_rag_1k"


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny.tokenizer().save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


class Router(LM):
    """Under a route's sentence it says of every second item (`half`), of all or of none that the answer is not
    there; without the sentence it is right."""

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.rule = rule

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        return [self.say(r.args[0], r.doc, r.doc_id) for r in requests]

    def say(self, prompt: str, doc: dict[str, Any], number: int) -> str:
        if "only a part of a longer one" not in prompt:
            return f"The answer is: {doc['answers'][0]}"
        gives_up = {"half": number % 2 == 0, "all": True, "never": False}[self.rule]
        return "The answer is: unanswerable." if gives_up else "Not unanswerable. The answer is: 42"

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        raise AssertionError("icr_ tasks never ask for likelihoods")

    loglikelihood_rolling = loglikelihood


def evaluate(rule: str, setting: str, tokenizer: str, out: Path) -> list[dict[str, Any]]:
    """Sample rows of a run of the scripted model, as lm_eval writes them."""
    metadata = {"setting": setting, "tokenizer": tokenizer, "max_model_len": 100_000}
    cell = run.Cell((TASK,), metadata, 4, chat=False)
    run.evaluate(Router(rule), cell, engine="router", model_args={"pretrained": rule}, gen_kwargs={}, out=out)
    return logged(out)


def logged(out: Path) -> list[dict[str, Any]]:
    (path,) = out.rglob("samples_*.jsonl")
    return sorted(map(json.loads, path.read_text().splitlines()), key=lambda row: row["doc_id"])


def sent(row: dict[str, Any]) -> dict[str, Any]:
    """The prompt digest of a sample row, from a file or as lm_eval returns it."""
    given = row["arguments"]
    return json.loads(given["gen_args_0"]["arg_0"] if isinstance(given, dict) else given[0][0])


@pytest.mark.parametrize("setting", ["route:self@1k,document"])
def test_items_that_say_so_read_the_whole_context(setting: str, tokenizer: str, tmp_path: Path) -> None:
    rows = evaluate("half", setting, tokenizer, tmp_path / "route")
    full = evaluate("half", "full", tokenizer, tmp_path / "full")
    rag = evaluate("half", "rag@1k", tokenizer, tmp_path / "rag")
    for row, whole, part in zip(rows, full, rag, strict=True):
        digest, went_on = sent(row), row["doc_id"] % 2 == 0
        steps = digest["route"]["steps"]
        assert digest["route"]["went_on"] is went_on and len(steps) == 1 + went_on
        assert steps[0]["setting"] == setting.replace("route:self", "rag") and steps[0]["output"]
        # the sentence of the first step costs its tokens, those of the second are those of `full`
        assert steps[0]["prompt"] > sent(part)["n_prompt_tokens"]
        assert row["subem"] == float(went_on)
        if went_on:
            assert steps[1] == {"setting": "full", "prompt": sent(whole)["n_prompt_tokens"], "output": None}
            assert row["resps"] == whole["resps"]
        assert digest["n_prompt_tokens"] == sum(step["prompt"] for step in steps)
        assert digest["retrieval"]["k"] == 1024
        before = steps[0]["output"] if went_on else 0
        assert row["out_tokens"] == before + len(row["resps"][0][0].encode())  # a token a byte


def test_the_ledger_tells_a_route_that_decides_nothing(
    tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = ("never", "half", "all")
    made = {rule: evaluate(rule, "route:self@1k", tokenizer, tmp_path / rule) for rule in rules}
    # what identifies an item does not depend on what a model answered
    assert len({tuple(sent(row)["sha256"] for row in rows) for rows in made.values()}) == 1
    main(["collect", str(tmp_path / "never"), "-o", str(tmp_path / "results-never")])
    assert "none of 4 items went on" in capsys.readouterr().err
    main(["collect", str(tmp_path / "all"), "-o", str(tmp_path / "results-all")])
    assert "all 4 items went on to the whole context" in capsys.readouterr().err
    main(["collect", str(tmp_path / "half"), "-o", str(tmp_path / "results"), "--json"])
    out, err = capsys.readouterr()
    assert "went on" not in err
    (head,) = json.loads(out)
    assert head["tasks"][TASK]["route"] == {"items": 4, "went_on": 2}
    assert head["setting"]["text"] == "route:self@1k" and head["setting"]["deployable"]
    from icr_tasks.leaderboard.ledgers import ledger

    ((folder, _),) = ledger.runs(tmp_path / "results")
    routed = [row["route"] for row in ledger.items(folder)]
    assert sum(r["went_on"] for r in routed) == 2 and all("said" in r for r in routed)


def test_through_lm_eval_and_replayed(tokenizer: str, tmp_path: Path) -> None:
    metadata = {"setting": "route:self@1k", "tokenizer": tokenizer, "max_model_len": 100_000}
    first = lm_eval("oracle", (TASK,), tmp_path / "first", metadata, "--limit", "3")
    assert first.returncode == 0, first.stderr[-2000:]
    assert "0 of 3 items went on to the whole context, so this is rag@1k alone" in first.stderr
    from icr_tasks.engines.replay import ReplayLM

    evaluate("half", "route:self@1k", tokenizer, tmp_path / "half")
    folder = str(tmp_path / "half")
    cell = run.Cell((TASK,), {"samples": folder}, 4, chat=False)
    run.evaluate(
        ReplayLM(folder),
        cell,
        engine="icr-replay",
        model_args={"samples": folder},
        gen_kwargs={},
        out=tmp_path / "again",
    )
    rows, again = logged(tmp_path / "half"), logged(tmp_path / "again")
    for one, two in zip(rows, again, strict=True):
        assert {k: one[k] for k in ("subem", "out_tokens")} == {k: two[k] for k in ("subem", "out_tokens")}
        assert sent(one)["route"] == sent(two)["route"]


def test_word_in_the_answer_not_in_the_reasoning() -> None:
    route = ROUTES["self"]({})
    assert route.goes_on("Unanswerable.", marker=False)
    assert route.goes_on("It is not there.\nThe answer is: unanswerable", marker=True)
    assert not route.goes_on("It looked unanswerable, but no. The answer is: Paris", marker=True)
    assert not route.goes_on("Paris", marker=False) and not route.goes_on("", marker=True)


@pytest.mark.parametrize("engine", ["icr-hf", "icr-vllm"])
def test_on_real_engines_the_last_answer_is_that_of_full(engine: str, tmp_path: Path) -> None:
    if engine == "icr-vllm" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed")
    model = str(tiny.llama(tmp_path / "model", hidden=256, window=8192))
    command = [sys.executable, "-P", str(Path(__file__).with_name("route_case.py")), engine, model]
    command += [str(tmp_path / "out"), *([str(tmp_path / "answers")] if engine == "icr-hf" else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for routed, full in zip(found["route:always@1k"], found["full"], strict=True):
        digest = sent(routed)
        assert routed["resps"] == full["resps"] and not digest["error"]
        first, last = digest["route"]["steps"]
        assert last["prompt"] == sent(full)["n_prompt_tokens"] and first["setting"] == "rag@1k"
        assert digest["n_prompt_tokens"] == first["prompt"] + last["prompt"]
        assert routed["out_tokens"] == first["output"] + full["out_tokens"]
        if engine == "icr-vllm":
            assert digest["engine_tokens"]["prompt"] == digest["n_prompt_tokens"]
            assert digest["timing"]["engine"] > 0


def test_a_host_that_shows_no_model_is_told(tokenizer: str) -> None:
    metadata = {"setting": "route:self@1k", "tokenizer": tokenizer, "max_model_len": 100_000}
    task = run.manager(metadata).load([TASK])["tasks"][TASK]
    with pytest.raises(IcrError, match="sends a second prompt to the model, which this host does not show"):
        task.build_all_requests(limit=2)
    builder = task.builder(None, None)
    with pytest.raises(IcrError, match="may send two prompts an item"):
        builder.build(task.items[0])


def test_what_rag_prepared_serves_the_route(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["prepare", "--tasks", TASK, "--setting", "rag@1k", "--tokenizer", tokenizer, "--limit", "2"])
    from icr_tasks.context import retrieve

    monkeypatch.setattr(retrieve, "retrieve", lambda *a, **k: pytest.fail("retrieved again"))
    metadata = {"setting": "route:self@1k", "tokenizer": tokenizer, "max_model_len": 100_000}
    task = run.manager(metadata).load([TASK])["tasks"][TASK]
    with session.evaluating(object()):
        task.build_all_requests(limit=2)
    assert len(task.instances) == 2
    assert not Setting.parse("route:self@4k,oracle").deployable
