"""`titles`: which titles a question names, and where their passages come to stand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from retrievekit import cache, stage  # noqa: F401

from icr_tasks.benchmarks.base import Unit
from icr_tasks.context import pool as pools
from icr_tasks.context.retrieval.titles import named
from icr_tasks.settings import Setting


@pytest.mark.parametrize(
    ("titles", "question", "found"),
    [
        (["Ian Brown", "Dee Snider"], "Are Ian Brown and Dee Snider both actors?", {"Ian Brown", "Dee Snider"}),
        (["Backstage (magazine)"], "Who owns Backstage?", {"Backstage (magazine)"}),
        (["Rain"], "Where did rain fall?", set()),  # a plain word
        (["Which"], "Which is it?", set()),  # every question begins with a capital
        (["value premium"], "An expert on Value Premium", {"value premium"}),
        (["Wigan Athletic", "2017 Wigan Athletic season"], "the 2017 Wigan Athletic season", {"2017 Wigan Athletic season"}),
        (["Wigan Athletic", "Athletic Bilbao"], "did Wigan Athletic Bilbao play", {"Wigan Athletic", "Athletic Bilbao"}),
        (["York"], "from New York to York", {"York"}),
        (["Ian Brown"], "Are Ian Browning and Ian_Brown both actors?", set()),
        (["", "(film)", "!!!"], "What is (film)?", set()),
        (["Will &amp; Grace (season 1)"], "the episode of Will & Grace", {"Will &amp; Grace (season 1)"}),
        (["Béla Gaál"], "Was Béla Gaál a director?", {"Béla Gaál"}),
    ],
)  # fmt: skip
def test_named(titles: list[str], question: str, found: set[str]) -> None:
    assert named(titles, question) == found


def test_a_title_of_several_words_is_found_where_a_pattern_finds_it() -> None:
    words = ["Ian", "Brown", "and", "ian", "brown", "of", "New", "New", "York"]
    for question in (", ".join(words), " ".join(words[::-1]), "Ian Brownand Newyork"):
        for title in (f"{a} {b}" for a in words for b in (*words, "York City")):
            pattern = r"\b" + r"\W+".join(map(re.escape, title.split())) + r"\b"
            assert bool(named([title], question)) == bool(re.search(pattern, question, re.I)), (
                title,
                question,
            )


def pool() -> pools.Pool:
    return pools.passages([
        Unit("0", "Ian Brown sings. Ian Brown acts. Dee Snider listens to Ian Brown.", "A list of both actors"),
        Unit("1", "Born in Warrington, he sang with a band.", "Ian Brown"),
        Unit("2", "He acted in a film.", "Ian Brown"),
        Unit("3", "He wrote songs of metal.", "Dee Snider"),
        Unit("4", "Rain fell on the harbour.", "Weather"),
    ])  # fmt: skip


def test_the_best_passage_of_each_title_comes_first_and_the_rest_as_it_was() -> None:
    question = "Are Ian Brown and Dee Snider both actors, acted in a film?"
    plain, ahead = (
        stage("rag@512").rank(pool(), question).tolist(),
        stage("rag@512,titles").rank(pool(), question).tolist(),
    )
    assert plain[0] == 0 and set(ahead[:2]) == {2, 3}
    assert ahead[2:] == [i for i in plain if i not in (2, 3)]
    scores = stage("rag@512,titles").scores(pool(), question)
    assert np.argsort(-scores, kind="stable").tolist() == ahead
    assert stage("rag@512,titles").notes(pool(), question)["titles"] == ["Dee Snider", "Ian Brown"]
    assert (
        stage("rag@512,titles").rank(pool(), "rain").tolist()
        == stage("rag@512").rank(pool(), "rain").tolist()
    )
    empty = pools.passages([])
    assert stage("rag@512,titles").rank(empty, question).tolist() == []


def test_a_later_search_finds_what_is_called_by_its_name() -> None:
    read = [
        Unit("0", "The Long Harbour is a novel by Ada Stone about a storm.", "The Long Harbour"),
        Unit(
            "1",
            "Ada Stone praised the novel; Ada Stone was born to write, they said of Ada Stone.",
            "Reviews",
        ),
        Unit("2", "A writer from Leeds.", "Ada Stone"),
        *(Unit(f"n{n}", f"The author of novel {n} was born somewhere.", f"Novel {n}") for n in range(9)),
    ]
    question = "Where was the author of The Long Harbour born?"
    found = stage("rag@512,titles,iterate=1").rank(pools.passages(read), question).tolist()
    assert found[0] == 0 and found[1] == 2
    assert stage("rag@512,iterate=1").rank(pools.passages(read), question).tolist().index(2) > 1


def test_what_the_question_names_stands_before_what_later_searches_bring() -> None:
    found = (
        stage("rag@512,titles,iterate=2").rank(pool(), "Are Ian Brown and Dee Snider both actors?").tolist()
    )
    assert {pool().units[i].title for i in found[:2]} == {"Ian Brown", "Dee Snider"} and sorted(
        found
    ) == list(range(5))


def test_it_stands_in_the_setting_only_where_it_is_asked_for() -> None:
    assert str(Setting.parse("rag@512,titles")) == "rag@512,titles"
    assert "titles" not in Setting.parse("rag@512").params
