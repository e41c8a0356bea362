"""Refinement of hard negatives: the compiled signals equal their definitions, and the default threshold
separates."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="refinement is compiled with numba (extra [train])")
from icr_tasks.training.data import refine, similarity
from icr_tasks.training.data.config import Config
from icr_tasks.training.data.read import records
from icr_tasks.training.data.similarity import SIGNALS

TEXTS = st.text(
    alphabet=st.sampled_from("ab cA_1. \n\t\u00a0\u0130\u03a3\u00df\u00e9\u4e2d\U0001f600"), max_size=40
)


def plain(golds: list[str], others: list[str]) -> np.ndarray:
    return np.array([[[f(a, b) for b in others] for a in golds] for f in SIGNALS.values()])


@given(st.lists(TEXTS, min_size=1, max_size=4), st.lists(TEXTS, min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_compiled_signals_equal_their_definitions(golds: list[str], others: list[str]) -> None:
    assert (similarity.signals(golds, others) == plain(golds, others)).all()


def test_any_characters_and_many_golds() -> None:
    texts = [
        "",
        " ",
        "x",
        "İstanbul ΣΑΣ",
        "\x1c\x85 foo bar baz",
        "\ud800 lone",
        "².³ ③ ªº a_b",
        "word " * 800,
    ]
    golds = texts * 9  # more than one machine word of gold passages
    assert (similarity.signals(golds, texts) == np.tile(plain(texts, texts), (1, 9, 1))).all()
    assert similarity.signals(["a"], []).shape == (4, 1, 0)


def test_the_same_passage_scores_one_and_nothing_shared_zero() -> None:
    assert (similarity.signals(["one two three four"], ["one two three four"]) == 1).all()
    assert (similarity.signals(["aaa bbb ccc"], ["xyz uvw rst"])[[0, 2, 3]] == 0).all()


@pytest.fixture(scope="module")
def paragraphs(shared_data: Path) -> list[dict[str, list[str]]]:
    out = []
    for record in records(shared_data / "hotpotqa" / "hotpotqa_dev_distractor_500.jsonl.gz"):
        titles = {title for title, _ in record["supporting_facts"]}
        parts: dict[str, list[str]] = {"gold": [], "rest": []}
        for title, sentences in record["context"]:
            text = " ".join("".join(sentences).split())
            if len(text.split()) >= 40:
                parts["gold" if title in titles else "rest"].append(text)
        if parts["gold"] and parts["rest"]:
            out.append(parts)
    return out


def share(paragraphs: list[dict[str, list[str]]], mode: str, threshold: float) -> float:
    """Of real distractors of the same question, the share called a candidate."""
    found = [refine.scores(p["gold"], p["rest"], mode) >= threshold for p in paragraphs]
    return float(np.concatenate(found).mean())


def test_real_distractors_are_told_from_evidence(paragraphs: list[dict[str, list[str]]]) -> None:
    cfg, r = Config(), random.Random(0)
    assert share(paragraphs, cfg.fuzzy, cfg.threshold) < 0.05
    assert share(paragraphs, "paper", 0.6) > 0.7  # character F1 lets most unrelated passages through
    halves, quotes = [], []
    for part in paragraphs:
        words, other = part["gold"][0].split(), r.choice(r.choice(paragraphs)["rest"]).split()
        middle = len(words) // 2
        halves.append(refine.scores(part["gold"][:1], [" ".join(words[middle:] + other[:50])], cfg.fuzzy)[0])
        start = r.randrange(len(words) - 25)
        quotes.append(
            refine.scores(part["gold"][:1], [" ".join(other[:75] + words[start : start + 25])], cfg.fuzzy)[0]
        )
    assert np.mean(np.array(halves) >= cfg.threshold) > 0.99  # the same text cut elsewhere
    assert np.mean(np.array(quotes) >= cfg.threshold) > 0.75  # one sentence of the evidence


def test_promotion_takes_the_best_first_and_stops_at_the_limit() -> None:
    values = np.array([0.1, 0.9, 0.5, 0.9, 0.2])
    assert refine.promoted(values, 0.2, 0) == [1, 3, 2, 4]
    assert refine.promoted(values, 0.2, 2) == [1, 3]
    assert refine.promoted(values, 0.95, 10) == []
