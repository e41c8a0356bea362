"""Retrieval on what it was not made for: a question of nothing, the same passage many times, more asked for than there
is. (Labels of rerankers, dimensions of stored vectors and routes that never give up have tests of their own.)"""

from __future__ import annotations

from typing import Any

import pytest
import tiny

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Item, Unit
from icr_tasks.context.build import Builder
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.settings import Setting

TOKENS = TokenCounter(tiny.tokenizer())
PASSAGES = [f"item {n} has colour shade{n} and stands in hall {n % 3}" for n in range(12)]
WITHOUT_A_MODEL = (
    "bm25",
    "random",
    "head",
    "bm25,iterate=2",
    "bm25,decompose",
    "bm25,titles",
    "bm25,titles,iterate=1",
)


def item(question: str, texts: list[str], gold: int = 7) -> Item:
    units = [Unit(f"p{n}", text, f"title {n}", gold=n == gold) for n, text in enumerate(texts)]
    return Item("q-0", question, ("shade7",), "q", lambda: units)


def built(setting: str, asked: Item) -> Any:
    prompt = base.get("helmet_rag", "ao", "nq")
    return Builder("helmet_rag", Setting.parse(setting), prompt, TOKENS, None, 16, None).build(asked)


@pytest.mark.parametrize("options", WITHOUT_A_MODEL)
@pytest.mark.parametrize("question", ["", " \n\t", "???!", "\u200b\u200d", "the of a"])
def test_a_question_of_nothing_still_fills_the_budget(options: str, question: str) -> None:
    """Nothing matches, so every passage is worth the same: some are shown, the same ones each time, within k."""
    asked = item(question, PASSAGES)
    digest = built(f"rag@64,{options}", asked).digest
    assert digest["retrieval"]["n_tokens"] <= 64 and digest["n_units_kept"] >= 1
    assert built(f"rag@64,{options}", asked).prompt == built(f"rag@64,{options}", asked).prompt


@pytest.mark.parametrize("options", WITHOUT_A_MODEL)
def test_the_same_passage_many_times(options: str) -> None:
    """Copies stay units of their own: none is lost or counted twice, and the budget holds."""
    texts = [PASSAGES[0]] * 20 + [PASSAGES[7]] * 2
    found = built(f"rag@256,{options}", item("which colour has item 7", texts, gold=20))
    assert found.digest["retrieval"]["n_tokens"] <= 256
    assert found.digest["n_units"] == found.digest["n_units_kept"] <= len(texts)
    if options == "bm25":
        assert found.prompt.count("shade7") == 2  # both copies of what is asked for come first
        assert found.digest["gold_kept"] == 1


@pytest.mark.parametrize("options", WITHOUT_A_MODEL)
def test_more_asked_for_than_there_is(options: str) -> None:
    """k above the whole context leaves it as it is, in its order: the prompt of `full`."""
    asked = item("which colour has item 7", PASSAGES)
    assert built(f"rag@1M,{options}", asked).prompt == built("full", asked).prompt
