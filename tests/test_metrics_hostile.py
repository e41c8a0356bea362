"""Answers that no sane model writes are scored like any other: no metric ends a run on them."""

from __future__ import annotations

import pytest

from icr_tasks.metrics import citations, scorers
from icr_tasks.metrics.extract import extract_answer
from icr_tasks.metrics.normalised import subem_norm

LONG = "9" * 5000  # a model in a loop; Python reads no number of more than 4,300 digits


@pytest.mark.parametrize(
    "text",
    [LONG, f"{LONG}th", f"{LONG} million", f"{'9' * 400} million", f"May {LONG}", f"{LONG} May 1900", f"1-1-{LONG}",
     f"[DOC {LONG}]", f"DOC {LONG}", f"Relevant documents: [DOC {LONG}]\nThe answer is: Oslo", f"[DOC {LONG}] Oslo"],
)  # fmt: skip
def test_digits_without_end_are_an_answer_like_any_other(text: str) -> None:
    for gold in ("Oslo", "May 1, 1900", "2 million", LONG):
        scores = scorers.score("qa", text, {"answers": [gold]}, [1])
        assert scores["cite_f1"] == 0.0 and scores["subem_norm"] == float(gold in extract_answer(text).reads)
    assert citations.cited_ids(text) == [] and citations.contents(text) in ({}, {0: "Oslo"})


def test_numbers_of_a_usual_size_are_read_as_before() -> None:
    assert (
        subem_norm("the 00021st of 3.5 million", ["21st"]) == subem_norm("3,500,000", ["3.5 million"]) == 1.0
    )
    assert citations.cited_ids("DOC 007 and DOC -1, DOC 12") == [7, 12]


@pytest.mark.parametrize(
    "text",
    ["Answer：Paris", "The answer is：Paris.", "**Final Answer**： Paris", "Answer：\nParis", "It says so.\n\nAnswer： Paris\n",
     "Relevant documents： [DOC 3]\nAnswer： Paris", "Sure：\nAnswer：Paris\n\nQuestion： what else?\nAnswer： Rome"],
)  # fmt: skip
def test_a_full_width_colon_is_a_colon(text: str) -> None:
    found = extract_answer(text)
    assert found.found and found.text == "Paris"
    scores = scorers.score("qa", text, {"answers": ["Paris"]}, None)
    assert scores["em"] == scores["f1"] == scores["parsed"] == 1.0


def test_a_full_width_colon_inside_an_answer_stays() -> None:
    assert extract_answer("Answer: 進撃の巨人：最終章").text == "進撃の巨人：最終章"
    assert extract_answer("The correct answer is Paris.\nAnswer：").text == "Paris"
    assert citations.cited_ids("I looked at [DOC 1].\nRelevant document IDs： [DOC 3]\nAnswer： x") == [3]
