"""`think_end_token`: stop strings count after the thought alone, and the thought stays where scoring finds it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from test_thinking import OPENS, TASK, Thinker, evaluate

from icr_tasks.engines import thoughts
from icr_tasks.engines.served.dialect import read
from icr_tasks.engines.thoughts import cut, whole
from icr_tasks.errors import IcrError


class Stripping(Thinker):
    """A model that throws thoughts away, as lm-eval's engines do where they are told the mark."""

    def __init__(self, template: str, end: Any = "</think>") -> None:
        super().__init__(template)
        self.think_end_token = end
        self.stops: list[Any] = []

    def say(self, prompt: str, gold: str, number: int) -> str:
        if number == 3:
            return f"Perhaps {gold}, or\n"  # a thought that never ends
        return super().say(prompt, gold, number)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.stops += [r.args[1]["until"] for r in requests]
        texts = super().generate_until(requests)
        return [t.split(self.think_end_token)[-1].lstrip() if self.think_end_token else t for t in texts]


def test_an_engine_that_throws_thoughts_away_scores_as_one_that_does_not(tmp_path: Path) -> None:
    """The prompt opens the thought, so nothing but the mark tells an answer from a thought that never ended."""
    plain = evaluate(Stripping(OPENS, None), tmp_path / "plain", thinking="on")
    found = evaluate(Stripping(OPENS), tmp_path / "mark", thinking="on")
    assert [s["metrics"] for s in found.values()] == [s["metrics"] for s in plain.values()]
    for item, sample in found.items():
        for metric in sample["metrics"]:
            assert sample[metric] == plain[item][metric], (item, metric)
    assert 0 < sum(s["em"] for s in found.values()) < len(found)
    assert sum(s["unfinished"] for s in found.values()) == 1


def test_requests_of_other_tasks_are_answered_as_ever() -> None:
    lm: Any = SimpleNamespace(think_end_token="</think>", tokenizer=tiny.tokenizer())
    lm.generate_until = lambda requests: [f"{lm.think_end_token} {r.args[1]['until']}" for r in requests]
    thoughts.keep(lm)
    thoughts.keep(lm)  # once is enough
    other = SimpleNamespace(args=("p", {"until": ["\n"]}))
    ours = SimpleNamespace(args=("p", {"until": "]"}), found={})
    assert lm.generate_until([other, ours, other]) == ["</think> ['\\n']", "None [", "</think> ['\\n']"]
    assert lm.think_end_token == "</think>"


def test_a_mark_that_the_engine_cannot_show_is_refused() -> None:
    lm: Any = SimpleNamespace(think_end_token=7, tokenizer=SimpleNamespace(decode=lambda ids: "<end>"))
    lm.generate_until, lm.tok_decode = (lambda requests: []), (lambda ids: "")
    with pytest.raises(IcrError, match=r"think_end_token=7 is a special token \(<end>\)"):
        thoughts.keep(lm)


def test_a_mark_of_the_users_own_ends_the_thought() -> None:
    assert whole("hm. Rome\n[fin] Paris\nmore", ["\n"], "[fin]") == ("hm. Rome\n</think> Paris", True)
    assert whole("hm</think>Paris", ["\n"], "</think>") == ("hm</think>Paris", False)
    assert cut("Paris\nmore", ["\n"]) == "Paris"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("torch")
    from icr_tasks.engines.hf import IcrHF

    folder = tiny.llama(tmp_path_factory.mktemp("tiny"), layers=1, hidden=32)
    return IcrHF(str(folder), device="cpu", dtype="float32")


@pytest.mark.parametrize("end", ["</think>", 1, "</s>", "[fin]"], ids=["text", "special", "its name", "own"])
def test_icr_hf_keeps_the_thought_and_stops_after_it(
    engine: Any, end: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token 1 of the tiny tokenizer is the special </s>."""
    from icr_tasks.engines.hf import decode
    from icr_tasks.settings import Setting

    said = engine.tokenizer("Perhaps\n\nRome")["input_ids"]
    said += [end] if isinstance(end, int) else engine.tokenizer(end)["input_ids"]  # </s> is token 1
    said += engine.tokenizer("Paris\n\nNext question")["input_ids"]

    def generate(model: Any, job: Any, method: Any) -> list[Any]:
        assert not job.stop(said[:9])  # within the thought
        return [decode.Answer(list(said[: job.max_new]), {}, {})]

    monkeypatch.setattr(decode, "generate", generate)
    monkeypatch.setattr(engine, "think_end_token", end)
    request: Any = SimpleNamespace(
        args=("Q", {"until": ["\n\n"], "max_gen_toks": len(said)}), task_name="t", doc_id=0
    )
    [(text, found)] = engine._answer([request], Setting.parse("full"))
    assert text == "Perhaps\n\nRome</think>Paris" and found["finish_reason"] == "stop"


def test_a_server_is_told_no_stop_strings_where_a_mark_ends_the_thought() -> None:
    from fake_served import FakeServed

    from icr_tasks.engines.served.model import IcrAPI

    with FakeServed(lambda prompt: "<think>\nRome\n\nor</think>Paris\n\nmore", model="m") as server:
        lm = IcrAPI(model="m", base_url=server.url, think_end_token="</think>")
        request = SimpleNamespace(args=("Q", {"until": ["\n\n"]}), task_name="t", doc_id=0, doc={}, found={})
        [text] = lm.generate_until([request], disable_tqdm=True)
    assert text.endswith("</think>Paris") and "stop" not in server.bodies[0]
    assert request.found["finish_reason"] == "stop"


def test_a_string_that_a_server_was_not_told_ends_the_answer_too() -> None:
    reply = read('{"choices":[{"text":"a;b","finish_reason":"length"}]}', [";"])
    assert (reply.text, reply.finish) == ("a", "stop")


def test_a_sweep_changes_the_engine_itself_and_not_what_stands_before_it(tmp_path: Path) -> None:
    """Without a chat template nothing but the engine under way is known of it."""
    from icr_tasks.harness import run
    from icr_tasks.sweep.engine import StoredLM

    class Text(Thinker):
        max_length = 2047  # lm-eval's placeholder

        def _create_payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {"stop": []}

        def parse_generations(self, outputs: Any, **kwargs: Any) -> list[str]:
            return []

    lm = Text(OPENS)
    stored = StoredLM(lm, lambda requests: [])
    cell = run.Cell((TASK,), {"tokenizer": "none", "max_length": 8192}, limit=2, chat=False)
    run.build(stored, cell, {"pretrained": "thinker"}, {})
    assert lm.max_length == 8192 and lm._create_payload() == {}


def test_a_store_of_icr_vllm_knows_what_changes_tokens_or_text() -> None:
    """lm-eval's class keeps these from vLLM, so they are no part of its arguments."""
    pytest.importorskip("vllm")
    from icr_tasks.engines.vllm import told

    base = told({"model": "m", "worker_extension_cls": "icr_tasks.kv.vllm.own.Worker"}, {}, None)
    assert base == {"model": "m", "lora": None}
    for given in (
        {"add_bos_token": True},
        {"add_bos_token": False},
        {"think_end_token": "</think>"},
        {"prefix_token_id": 1},
    ):
        assert told({"model": "m"}, given, None) == {**base, **given}
    assert told({"model": "m"}, {}, "kv:topk@0.05")["kv"] == "kv:topk@0.05" and "kv" not in told(
        {}, {}, "task"
    )
