"""Thinking switched by one option, in the words of each family; thoughts change no score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from fake_served import FakeServed
from lm_eval.api.model import LM

from icr_tasks.context import thinking
from icr_tasks.context.thinking import Switch, by_name, by_template
from icr_tasks.engines.served.model import IcrAPI
from icr_tasks.errors import IcrError
from icr_tasks.harness import run
from icr_tasks.harness.options import Options
from icr_tasks.leaderboard.ledgers.collect import collect

TASK = "icr_synth_rag_512"
QWEN = tiny.CHAT_TEMPLATE + (
    "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}"
)
OPENS = tiny.CHAT_TEMPLATE + (  # DeepSeek V3.1: the thought is opened by the prompt
    "{% if add_generation_prompt %}{% if thinking %}<think>{% else %}</think>{% endif %}{% endif %}"
)


class Thinker(LM):
    """A scripted model: the gold answer, after a thought full of wrong ones unless the prompt closed it."""

    def __init__(self, template: str) -> None:
        super().__init__()
        self.tokenizer = tiny.tokenizer()
        self.tokenizer.chat_template = template
        self.chat_template_args: dict[str, Any] = {}
        self.prompts: list[str] = []

    @property
    def tokenizer_name(self) -> str:
        return "thinker"

    def chat_template(self, chat_template: Any = False) -> str:
        return str(self.tokenizer.chat_template)

    def apply_chat_template(self, history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            history, tokenize=False, add_generation_prompt=add_generation_prompt, **self.chat_template_args
        )

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.prompts += [r.args[0] for r in requests]
        return [self.say(r.args[0], r.doc["answers"][0], int(r.doc_id)) for r in requests]

    def say(self, prompt: str, gold: str, number: int) -> str:
        answer = f"Answer: {gold if number % 2 else 'Nowhere'}"
        if prompt.rstrip().endswith("</think>"):
            return answer
        start = "" if prompt.endswith("<think>") else "<think>\n"
        return f"{start}Perhaps {gold}, or Rome. Answer: Rome.\n</think>\n\n{answer}"

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        raise AssertionError

    loglikelihood_rolling = loglikelihood


def evaluate(lm: Any, out: Path, args: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    cell = run.Cell((TASK,), {"max_length": 8192, **metadata}, limit=6)
    args = args or {"pretrained": "thinker", "tokenizer": "none"}
    found = run.evaluate(lm, cell, engine="thinker", model_args=args, gen_kwargs={}, out=out)
    return {s["doc"]["id"]: s for s in found["samples"][TASK]}


@pytest.mark.parametrize("template", [QWEN, OPENS], ids=["enable_thinking", "thinking"])
def test_the_same_score_with_thoughts_and_without(template: str, tmp_path: Path) -> None:
    """Each item, each metric; two rows of a ledger that say which is which."""
    lm = Thinker(template)
    on = evaluate(lm, tmp_path / "on", thinking="on")
    off = evaluate(lm, tmp_path / "off", thinking="off")
    for item, with_thoughts in on.items():
        without = off[item]
        for metric in with_thoughts["metrics"]:
            if metric not in ("out_tokens", "thought_tokens"):
                assert with_thoughts[metric] == without[metric], (item, metric)
        assert with_thoughts["filtered_resps"] == without["filtered_resps"]
        assert "Rome" in with_thoughts["resps"][0][0] and "Rome" not in without["resps"][0][0]
    assert 0 < sum(s["em"] for s in on.values()) < len(on)
    assert lm.prompts[0] != lm.prompts[len(on)]
    collect([tmp_path], tmp_path / "results")
    heads = [json.loads(p.read_text()) for p in tmp_path.glob("results/*/*/*/run.json")]
    assert {h["fingerprint_inputs"].get("thinking") for h in heads} == {"on", "off"}
    assert len({h["fingerprint"] for h in heads}) == 2


def test_a_task_without_the_option_starts_from_the_engines_own_arguments(tmp_path: Path) -> None:
    lm = Thinker(QWEN)
    plain = evaluate(lm, tmp_path / "a")
    evaluate(lm, tmp_path / "b", thinking="off")
    again = evaluate(lm, tmp_path / "c")
    assert lm.prompts[: len(plain)] == lm.prompts[2 * len(plain) :]
    assert [s["resps"] for s in plain.values()] == [s["resps"] for s in again.values()]
    assert lm.chat_template_args == {}


def test_a_served_model_scores_the_same_with_thoughts_and_without(tmp_path: Path) -> None:
    """The server's parser takes the thoughts out; the model's name says which switch its family has."""

    def reply(prompt: str) -> Any:
        return {"reasoning_content": "Perhaps Rome.", "content": "Answer: 1955"}

    scores, bodies = {}, {}
    for switched in ("on", "off"):
        with FakeServed(reply, model="Qwen/Qwen3-8B") as server:
            args = {"model": "Qwen/Qwen3-8B", "base_url": server.url, "tokenizer": "none"}
            if switched == "off":
                server.reply = lambda prompt: "Answer: 1955"
            found = evaluate(IcrAPI(**args), tmp_path / switched, args, thinking=switched)
            scores[switched] = {item: [s[m] for m in s["metrics"]] for item, s in found.items()}
            bodies[switched] = server.bodies[0]
    assert scores["on"] == scores["off"]
    assert bodies["off"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert bodies["on"]["chat_template_kwargs"] == {"enable_thinking": True}


@pytest.mark.parametrize(
    ("model", "word", "switch"),
    [
        ("Qwen/Qwen3-8B", "off", Switch({"enable_thinking": False})),
        ("zai-org/GLM-4.6", "on", Switch({"enable_thinking": True})),
        ("deepseek-ai/DeepSeek-V3.1", "off", Switch({"thinking": False})),
        ("ibm-granite/granite-3.3-8b-instruct", "on", Switch({"thinking": True})),
        ("openai/gpt-oss-20b", "low", Switch(body={"reasoning_effort": "low"})),
        ("gpt-5-mini", "high", Switch(body={"reasoning_effort": "high"})),
        ("o3", "on", Switch()),
        ("ByteDance-Seed/Seed-OSS-36B-Instruct", "off", Switch({"thinking_budget": 0})),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "off", Switch(system="detailed thinking off")),
        ("deepseek-ai/DeepSeek-R1-0528", "on", Switch()),
        ("Qwen/Qwen3-4B-Instruct-2507", "off", Switch()),
        ("google/gemma-4-27b-it", "off", Switch({"enable_thinking": False})),
    ],
)
def test_each_family_has_its_own_word(model: str, word: str, switch: Switch) -> None:
    assert by_name(model, word) == switch


@pytest.mark.parametrize(
    ("model", "word", "words"),
    [
        ("openai/gpt-oss-20b", "off", "always thinks; thinking=low is the least"),
        ("deepseek-ai/DeepSeek-R1", "off", "always thinks"),
        (
            "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B",
            "off",
            "always thinks",
        ),  # made from Qwen3, without its switch
        ("Qwen/Qwen3-4B-Instruct-2507", "on", "never thinks"),
        ("Qwen/Qwen3-8B", "low", "knows on and off"),
        ("my-model", "off", "is not known; give its server's own parameter"),
    ],
)
def test_what_a_family_cannot_is_refused(model: str, word: str, words: str) -> None:
    with pytest.raises(IcrError, match=words):
        by_name(model, word)


def test_a_template_decides_by_what_it_renders() -> None:
    seen = lambda switch: str(sorted(switch.kwargs.items()))  # noqa: E731
    assert by_template("{% if enable_thinking %}", "off", seen) == Switch({"enable_thinking": False})
    assert by_template("{{ thinking_budget }}", "off", seen) == Switch({"thinking_budget": 0})
    assert by_template("x /no_think y", "off", seen) == Switch(system="/no_think")
    assert by_template("{{ reasoning_effort }}", "low", seen) == Switch({"reasoning_effort": "low"})
    for text, word in (("no switch", "off"), ("{{ reasoning_effort }}", "off"), ("m.thinking", "off")):
        with pytest.raises(IcrError, match="has no switch for that"):
            by_template(text, word, seen)
    with pytest.raises(IcrError, match="has no switch"):  # it names the variable, and renders the same
        by_template("{# enable_thinking #}", "off", lambda switch: "same")


def test_the_option_is_checked_before_anything_runs(tmp_path: Path) -> None:
    assert thinking.word(False) == "off" and thinking.word(True) == "on" and thinking.word("OFF") == "off"
    with pytest.raises(IcrError, match="unknown thinking 'of'. Did you mean 'off'"):
        Options.parse({"thinking": "of"})
    with pytest.raises(IcrError, match="did you mean 'thinking'"):
        Options.parse({"thinkin": "off"})
    lm = Thinker(tiny.CHAT_TEMPLATE)
    with pytest.raises(IcrError, match="has no switch for that"):
        evaluate(lm, tmp_path, thinking="off")
    assert lm.prompts == [] and lm.chat_template_args == {}
