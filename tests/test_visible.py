"""The visible answer: every form of thoughts that models write, with tokens kept, skipped or
half-stripped."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from icr_tasks.metrics.given import given
from icr_tasks.metrics.scorers import score as scores_of
from icr_tasks.metrics.thought_forms import FORMS
from icr_tasks.metrics.visible import opens_thought, visible

# One line a family: what the output looks like, and what the chat template may have put before it.
MORE = (
    "<think>{t}</think>{a}",
    "{t}</think>\n\n{a}",
    "{t}\n</think>{a}<|im_end|>",
    "<think>\n\n</think>\n\n{a}",
    "<think>{t}</think>\n<answer>\n{a}\n</answer>",
    "{t}</think>\n\n<response>\n{a}\n</response>\n",
    "<think>{t}</think><response>{a}</response>",
    "<thinking>{t}</thinking>\n{a}",
    "<thought>\n{t}\n</thought>\n\n{a}[|endofturn|]",
    "<Thought>\n{t}\n</Thought>\n<Output>\n{a}\n</Output>",
    "<thinking>{t}<reflection>{t}</reflection></thinking><output>{a}</output>",
    "<reasoning>\n{t}\n</reasoning>\n{a}",
    "<seed:think>{t}</seed:think>{a}<seed:eos>",
    "<mm:think>{t}</mm:think>{a}",
    "<ifm|think_faster>{t}</ifm|think_faster>{a}",
    "<longcat_think>{t}</longcat_think>{a}",
    "<think:6124c78e>{t}</think:6124c78e>{a}",
    "<judge>{t}</judge>\n<think_on><think>{t}</think>\n<answer>{a}</answer>",
    "&lt;think&gt;{t}&lt;/think&gt;{a}",
    "<|channel|>analysis<|message|>{t}<|end|><|start|>assistant<|channel|>commentary<|message|>{t}<|end|>"
    "<|start|>assistant<|channel|>final<|message|>{a}",
    "analysis{t}assistantfinal{a}",
    "<|channel|>final<|message|>{a}<|return|>",
    "think{t}thinkresponse{a}",
    "<|open|>response<|sep|>{a}<|close|>response<|sep|>",
    "[THINK]{t}[/THINK]{a}</s>",
    "<|begin_of_thought|>\n{t}\n<|end_of_thought|>\n\n<|begin_of_solution|>\n{a}\n<|end_of_solution|>",
    "<|plamo:begin_think:plamo|>{t}<|plamo:end_think:plamo|>{a}",
    "<|START_THINKING|>{t}<|END_THINKING|><|START_RESPONSE|>{a}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    "{t}<|END_THINKING|><|START_TEXT|>{a}<|END_TEXT|>",
    "<unused94>thought\n{t}<unused95>{a}<end_of_turn>",
    "{t}<channel|>{a}",
    "<|message_model|><|content_text|>{a}<|end_message|>",
    "to=self{t}assistant to=user{a}",
    "think\n{t}\nanswer\n{a}",
    "/think\n{t}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>",
    "<|begin|>assistant<|think|>{t}<|end|><|begin|>assistant<|content|>{a}<|end|>",
    "Here's my thought process: {t}\nHere's my response: {a}",
    "<|im_start|>assistant\n<think>{t}</think>{a}<|im_end|>\n<|im_start|>user\n{t}",
    "<think>{t} <think> {t}</think>{a}",
    "<think>{t}</think>{t}</think>{a}",
    "<think>{t}</thinking>{a}",
    "{t}<|think:end|>{a}<|im_end|>",
    "{t}[unused17]{a}[unused10]",
    "<start_of_thought>{t}<end_of_thought>{a}",
    "<｜begin▁of▁think｜>{t}<｜end▁of▁think｜>{a}",
    "<|open|>message<|sep|><|open|>think<|sep|>{t}<|close|>think<|sep|><|open|>response<|sep|>{a}<|close|>response<|sep|>"
    "<|close|>message<|sep|><|end_of_msg|>",
    "<|open|>think<|sep|>{t}<|open|>response<|sep|>{a}<|close|>response<|sep|>",
    "<think>{t}</think>{a}<|reserved_13|>",
    "<think>{t}</think></think>{a}",
    "<thought_process>{t}</thought_process>{a}",
    "<inner_monologue>{t}</inner_monologue>{a}",
    "<chain_of_thought>{t}</chain_of_thought>{a}",
    "<rationale>{t}</rationale><answer>{a}</answer>",
    "<reasoning_content>{t}</reasoning_content>{a}",
    "<antThinking>{t}</antThinking>{a}",
    "[THOUGHT]{t}[/THOUGHT]\n[ANSWER]{a}[/ANSWER]",
    "**Thinking:**\n{t}\n\n**Answer:**\n{a}",
    "**Thought Process**\n{t}\n\n**Final Answer:**\n{a}",
)
ALL = [*(f.example for f in FORMS), *MORE]
OPTIONS = ["London", "Paris", "Rome", "Oslo"]
THOUGHTS = (
    "The answer is: London. No, (A) or (B)?\n\nAnswer: C",
    "Could it be **B. Paris**? The correct answer is (D). \\boxed{Oslo} [DOC 4]",
    '{"answer": "London"}\n\n- Paris\n- Rome\n\nFinal answer: Rome',
    "",
)
TASKS: dict[str, dict[str, object]] = {
    "qa": {"answers": ["Paris"]},
    "helmet_official": {"answers": ["Paris"]},
    "infbench_mc": {"answers": ["Paris"], "options": OPTIONS},
    "infbench_qa": {"answers": ["Paris", "city of Paris"]},
    "infbench_sum": {"answers": ["Paris is a city.\nIt lies on a river."]},
    "longbench": {"answers": ["B"], "options": OPTIONS},
    "loong": {"answers": ["Paris"]},
}


@pytest.mark.parametrize("form", ALL)
def test_a_thought_in_any_form_changes_no_metric_of_any_task(form: str) -> None:
    answers = (
        "The answer is: Paris.",
        "The correct answer is (B).",
        "B. Paris",
        "Paris\nIt is a city.",
        "Rome",
    )
    for thought, answer in itertools.product(THOUGHTS, answers):
        seen = given(form.format(t=thought, a=answer))
        assert seen.text == answer and not seen.unfinished, form
        for scorer, doc in TASKS.items():
            assert scores_of(scorer, seen, doc, [1]) == scores_of(scorer, given(answer), doc, [1]), (
                form,
                scorer,
            )


@pytest.mark.parametrize("form", [f for f in ALL if "{t}" in f and not f.startswith("{t}")])
def test_a_thought_that_never_ends_is_no_answer(form: str) -> None:
    seen = given(form[: form.index("{t}")] + THOUGHTS[0])
    assert (seen.text, seen.unfinished) == ("", True)
    for scorer in ("qa", "infbench_mc", "longbench", "infbench_qa"):
        scores = scores_of(scorer, seen, TASKS[scorer], marker=True)
        assert not any(v for k, v in scores.items() if k != "out_tokens"), scores


def test_a_thought_opened_by_the_template() -> None:
    for end in (
        "<think>\n",
        "<think>",
        "<｜Assistant｜><think>\n",
        "[THINK]",
        "<think>\n\n",
        "<|inner_prefix|>",
    ):
        assert opens_thought(f"question<|im_end|>\n<|im_start|>assistant\n{end}"), end
    for end in ("<think>\n\n</think>\n\n", "</think>", "<|im_start|>assistant\n", "a <think> tag", ""):
        assert not opens_thought(end), end
    assert visible("hmm, London</think>Paris", opened=True).text == "Paris"
    cut = given("hmm, London is", opened=True)
    assert (cut.text, cut.unfinished, len(cut.thoughts)) == ("", True, 1)


@pytest.mark.parametrize(
    "text",
    [
        "The answer is: Paris.",
        "analysis of variance",
        "Analysis: x < y and y > z [1]",
        "Here is my response: Paris",
        "Final answer\nParis",
        "a thought\nand more",
        "</CHAPTER> Paris",
        "He said <b>Paris</b> [THE END]",
        "B</s>",
        "I think</p>",
        "x to=user y",
        " \n Paris \n ",
        "## Answer\nParis",
        "**Thinking:** of Paris",
        "**Answer:**\nParis",
        "[unused16 seats] Paris",
        "```json\n{}\n```",
        "",
    ],
)
def test_a_text_without_marks_is_untouched(text: str) -> None:
    assert visible(text) == (text, (), True)


@settings(max_examples=300, deadline=None)
@drawn(
    st.lists(st.sampled_from([*"ab <>/|\n", "<think>", "</think>", "<|end|>", "analysis", "[THINK]", "<|"]))
)
def test_nothing_breaks_it_and_twice_is_once(parts: list[str]) -> None:
    once = visible("".join(parts))
    assert visible(once.text).closed or once.closed
    assert len(once.text) <= len("".join(parts))


def test_a_mark_that_a_control_token_split_is_a_mark() -> None:
    once = visible("<analysis<|end|>><think>")
    assert once == ("", (), False) and visible(once.text).closed


def test_ten_megabytes_take_seconds() -> None:
    for text in ("x" * 10_000_000, "<think>" + "y " * 4_999_999, "</think>" * 200_000, "<" * 3_000_000):
        since = time.perf_counter()
        visible(text)
        assert time.perf_counter() - since < 20


def test_what_is_no_text_is_counted_and_surrogates_are_replaced() -> None:
    for raw in (None, 3, 3.5, True, ["a"], {"a": 1}):
        seen = given(raw)
        assert (seen.text, seen.readable, seen.unfinished) == ("", False, True)
    assert not given(None, finish_reason="stop").unfinished
    assert given("a\ud800b").text == "a?b" and given("a\ud800b").readable


@pytest.mark.parametrize(
    ("text", "facts", "cut"),
    [
        ("The answer is: Paris.", {"finish_reason": "length"}, True),
        ("The answer is: Paris.", {"finish_reason": "stop", "n_tokens": 9, "budget": 9}, False),
        ("The answer is: Paris.", {"n_tokens": 9, "budget": 9}, True),
        ("The answer is: Paris.", {"n_tokens": 8, "budget": 9}, False),
        ("The answer is: Paris.", {"n_tokens": 8, "budget": 0}, False),
        ("", {"finish_reason": "length"}, True),
        ("", {"finish_reason": "stop"}, False),
        ("<think>hm", {"finish_reason": "stop"}, True),
        ("Paris", {}, False),
    ],
)
def test_unfinished(text: str, facts: dict[str, object], cut: bool) -> None:
    assert given(text, **facts).unfinished is cut  # type: ignore[arg-type]


def test_a_cut_answer_is_wrong_only_where_nothing_readable_came_before() -> None:
    doc = TASKS["qa"]
    told = given("The answer is: Paris. It is a", finish_reason="length")
    assert scores_of("qa", told, doc, marker=True)["subem"] == 1.0
    talk = given("There are many cities in France, Paris and", finish_reason="length")
    assert scores_of("qa", talk, doc, marker=True)["subem"] == 0.0
    assert scores_of("qa", talk, doc, marker=True)["subem_raw"] == 1.0  # the raw row scores what is there
    official = scores_of("helmet_official", talk, doc)
    assert official["subem_official"] == 1.0
    assert scores_of("infbench_sum", talk, TASKS["infbench_sum"])["rougeLsum"] > 0


def test_the_docs_list_every_form() -> None:
    docs = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
    text = docs.read_text(encoding="utf-8")
    for form in FORMS:
        assert f"| {form.name} |" in text and form.models in text, form.name
