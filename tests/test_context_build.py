"""Prompts: exact text, what each setting changes, and the promise that only the context is ever cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Item, Unit
from icr_tasks.context.build import Builder, DoesNotFit, dumps
from icr_tasks.context.fit import RULES
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.errors import IcrError
from icr_tasks.settings import Setting

TOKENIZER = tiny.tokenizer()
TOKENS = TokenCounter(TOKENIZER)


def units(n: int = 4, words: int = 6) -> list[Unit]:
    return [Unit(f"p{i}", f"passage {i} " + "word " * words, f"Title {i}", gold=i == 2) for i in range(n)]


def item(n: int = 4) -> Item:
    return Item("q1-0", "who wrote {context} it", ("Ann Lee",), "q1", lambda: units(n), fields={"key": "q1"})


def builder(setting: str = "full", prompt: str = "ao", benchmark: str = "helmet_rag", **more: Any) -> Builder:
    defaults = {"tokens": TOKENS, "window": 100_000, "max_gen_toks": 16, "template": None}
    return Builder(benchmark, Setting.parse(setting), base.get(benchmark, prompt), **{**defaults, **more})


def test_golden_ao_prompt() -> None:
    built = builder().build(item(2))
    assert built.prompt == (
        "You are an expert in question answering.\n\n"
        "Use the given documents to write a concise and short answer to the question.\n\n"
        "[DOC 0]\npassage 0 word word word word word word \n\n[DOC 1]\npassage 1 word word word word word "
        "word \n\n"
        "Question: who wrote {context} it\n\n"
        "Write your concise and short answer in the following format:\n\nAnswer: <your answer>."
    )


def test_braces_in_the_question_are_not_templates() -> None:
    assert base.fill("{a}-{b}", {"a": "{b}", "b": "x"}) == "{b}-x"


def test_settings_change_the_prompt() -> None:
    text = {s: builder(s).build(item()).prompt for s in ("full", "none", "gold", "gold@only")}
    assert "[DOC 3]" in text["full"] and "[DOC" not in text["none"]
    assert "passage 2" in text["gold@only"] and "passage 1" not in text["gold@only"]
    assert text["gold"].startswith(text["full"])
    assert text["gold"].endswith("Relevant documents:\n[DOC 2]\npassage 2 " + "word " * 6 + "\n\n")


def test_gold_ids_are_positions_in_the_prompt() -> None:
    assert builder("full", "id").build(item()).digest["gold_ids"] == [2]
    assert builder("gold@only", "id").build(item()).digest["gold_ids"] == [0]


def test_gold_prefill_is_continued_by_a_chat_template() -> None:
    def template(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return TOKENIZER.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    built = builder("gold", template=template).build(item())
    assert built.prompt.startswith("<|system|>You are an expert")
    assert "<|assistant|>Relevant documents:\n[DOC 2]" in built.prompt
    assert builder("full", template=template).build(item()).prompt.endswith("<|assistant|>")


@pytest.mark.parametrize("rule", sorted(RULES))
def test_only_the_context_is_cut_and_it_fits(rule: str) -> None:
    whole = builder(truncation=rule).build(item(20))
    for window in range(330, whole.digest["n_prompt_tokens"] + 20, 37):
        built = builder(truncation=rule, window=window).build(item(20))
        assert built.digest["n_prompt_tokens"] + 16 <= window
        assert built.digest["truncated"] == (whole.digest["n_prompt_tokens"] + 16 > window)
        assert built.prompt.startswith("You are an expert") and built.prompt.endswith(
            "Answer: <your answer>."
        )
        assert "Question: who wrote {context} it" in built.prompt


def test_edge_of_the_window() -> None:
    exact = builder().build(item()).digest["n_prompt_tokens"] + 16
    assert not builder(window=exact).build(item()).digest["truncated"]
    assert builder(window=exact - 1).build(item()).digest["truncated"]
    assert not builder(window=exact + 1).build(item()).digest["truncated"]


def test_a_gold_passage_that_is_cut_away_is_recorded() -> None:
    full = builder().build(item()).digest["n_prompt_tokens"]
    digest = builder(window=full - 60).build(item()).digest
    assert (digest["n_gold"], digest["gold_kept"], digest["n_units_kept"]) == (1, 0, 2)
    assert digest["dropped"] == ["Title 2", "Title 3"]


def test_what_cannot_fit_is_never_sent() -> None:
    with pytest.raises(DoesNotFit, match="alone need"):
        builder(window=60).build(item())
    with pytest.raises(DoesNotFit, match="the model has 400"):
        builder(window=400, overflow="skip").build(item(20))


def test_clear_errors() -> None:
    with pytest.raises(IcrError, match="no form without context"):
        builder("none", "id").build(item())
    with pytest.raises(IcrError, match="did you mean|Did you mean 'ao'"):
        base.get("helmet_rag", "aoo")
    no_gold = Item("x", "q", ("a",), "x", lambda: [Unit("0", "text")])
    with pytest.raises(IcrError, match="does not mark"):
        builder("gold").build(no_gold)


def test_digest_holds_no_context() -> None:
    built = builder().build(Item("x", "q", ("a",), "x", lambda: [Unit("0", "secret " * 5000)]))
    assert len(dumps(built.digest)) < 1500
    assert json.loads(dumps(built.digest))["sha256"]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 30), st.integers(280, 3000), st.sampled_from(sorted(RULES)))
def test_any_window_is_respected(n: int, words: int, window: int, rule: str) -> None:
    entry = Item("x", "short?", ("a",), "x", lambda: units(n, words))
    try:
        digest = builder(window=window, truncation=rule).build(entry).digest
    except DoesNotFit:
        return
    assert digest["n_prompt_tokens"] + 16 <= window
