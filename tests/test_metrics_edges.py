"""Metrics at their edges: what each counts, against short references and by hand."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from icr_tasks.metrics import answers, choice, citations, extract, normalised, rouge
from icr_tasks.metrics.extract import extract_answer
from icr_tasks.metrics.given import Given, given

# ---- what enters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [None, "stop", "length", "MAX_TOKENS", "max_new_tokens"])
@pytest.mark.parametrize("n_tokens", [None, 0, 9, 10, 11])
@pytest.mark.parametrize("budget", [None, 0, 10])
def test_whether_an_answer_was_cut(reason: str | None, n_tokens: int | None, budget: int | None) -> None:
    """The engine's word decides; without one a count that reaches a budget, or that there is no text at all."""
    reached = n_tokens is not None and budget == 10 and n_tokens >= 10
    for raw, readable in (("text", True), ("", True), (None, False), (3, False), (["text"], False)):
        found = given(raw, finish_reason=reason, n_tokens=n_tokens, budget=budget)
        cut = reason in ("length", "MAX_TOKENS", "max_new_tokens") if reason else reached or not readable
        assert found == Given("text" if raw == "text" else "", (), cut, readable, n_tokens), (raw, found)


def test_an_open_thought_is_unfinished_and_nothing_was_thought_in_no_text() -> None:
    assert given("so <think>why", finish_reason="stop") == Given("so", ("why",), True)
    assert given("why</think>Oslo", opened=True) == Given("Oslo", ("why",), False)
    assert given("why", opened=True, finish_reason="stop") == Given("", ("why",), True)
    assert given(None, opened=True, finish_reason="stop") == Given("", (), False, False)
    assert (
        given("a<think>one</think>b<think>two words</think>c").thought_tokens(lambda t: len(t.split())) == 3
    )
    assert Given("x").thought_tokens(len) == 0


def test_the_word_of_the_harness_for_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given("NONE").readable and given("\0").text == "\0"
    monkeypatch.setenv("LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER", "NONE")
    assert given("NONE") == Given("", (), True, False) and given("NONE.").readable


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plain", "official"),
    [("The cat, a dog", "cat dog", "cat dog"), ("!!!", "!!!", ""), ("The The", "the the", ""), ("A!", "a", ""),
     ("Æther — Œuvre", "aether oeuvre", "æther — œuvre"), ("Ø3 ﬁn Łódź", "o3 fin lodz", "ø3 ﬁn łódź"), ("? the", "the", ""),
     ("? !", "? !", ""), ("", "", ""), ("don’t", "dont", "don’t")],
)  # fmt: skip
def test_one_form_of_a_text(text: str, plain: str, official: str) -> None:
    assert (answers.normalize(text), answers.normalize_official(text)) == (plain, official)


@pytest.mark.parametrize("seed", range(30))
def test_f1_of_tokens(seed: int) -> None:
    draw = random.Random(seed)
    pred, gold = (draw.choices("wxyz", k=draw.randint(0, 6)) for _ in range(2))
    left, common = list(gold), 0
    for token in pred:
        if token in left:
            left.remove(token)
            common += 1
    wanted = 2 * common / (len(pred) + len(gold)) if common else 0.0
    assert answers.token_f1(pred, gold) == pytest.approx(wanted)
    said, golds = " ".join(pred), [" ".join(gold), "q r s"]
    assert answers.f1(said, golds) == answers.infbench_f1(said, golds) == pytest.approx(wanted)
    assert answers.f1(said, []) == answers.infbench_f1(said, []) == answers.em(said, []) == 0.0


def test_one_of_several_golds_is_enough() -> None:
    for metric in (
        answers.subem,
        answers.subem_official,
        answers.subem_word,
        answers.em,
        answers.f1,
        answers.infbench_f1,
    ):
        assert metric("Oslo", ["Bern", "Oslo"]) == metric("Oslo", ["Oslo", "Bern"]) == 1.0
        assert metric("Oslo", ["Bern", "Rome"]) == metric("Oslo", []) == 0.0


def test_yes_and_no_are_whole_answers() -> None:
    for one in ("yes", "no", "noanswer"):
        assert answers.f1(one, [one]) == 1.0 and answers.f1(f"{one} it is", [f"{one} it is"]) == 1.0
        assert answers.f1(f"{one} it is", [one]) == answers.f1(one, [f"{one} it is"]) == 0.0
        assert answers.f1(one, ["other", one]) == 1.0
    assert answers.infbench_f1("yes it is", ["yes"]) == 0.5


def test_the_papers_subem_reads_everything_and_ours_the_answer() -> None:
    found = answers.score("I thought of Oslo. Answer: Bern", ["Oslo"])
    assert (found["subem_raw"], found["subem"], found["subem_norm"], found["subem_word"]) == (
        1.0,
        0.0,
        0.0,
        0.0,
    )
    assert (found["em"], found["f1"], found["parsed"]) == (0.0, 0.0, 1.0) and "cite_p" not in found
    split = answers.score("Answer: O\u200bslo **x**", ["O\u200bslo x"])
    assert split["subem_raw"] == 1.0, "or of the answer without its markup"
    cited = answers.score("[DOC 1] [DOC 2] Answer: Bern", ["Bern"], [2, 3, 4])
    assert (cited["cite_p"], cited["cite_r"], cited["cite_f1"]) == (
        0.5,
        pytest.approx(1 / 3),
        pytest.approx(0.4),
    )
    assert answers.score("Bern", ["Bern"])["parsed"] == 0.0 and answers.score("Bern", ["Bern"])["em"] == 1.0


@pytest.mark.parametrize("completion", [True, False])
def test_helmets_own_reading(completion: bool) -> None:
    """The best of the whole text and of the parsed line, each metric by itself."""
    found = answers.helmet_official("Bern it is\nnot Oslo", ["Oslo"], completion=completion)
    assert found == {"subem": 1.0, "em": 0.0, "f1": pytest.approx(2 / 6)}
    text = "ANSWER: Bern" if completion else "ANSWER: answer: Bern"
    assert answers.helmet_official(text, ["Bern"], completion=completion)["em"] == 1.0


# ---- citations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_precision_and_recall_of_citations(seed: int) -> None:
    draw = random.Random(seed)
    cited, gold = (draw.sample(range(6), draw.randint(0, 4)) for _ in range(2))
    hit = sum(i in gold for i in cited)
    p, r = (hit / len(cited) if cited else 0.0), (hit / len(gold) if gold else 0.0)
    wanted = (1.0, 1.0, 1.0) if not cited and not gold else (p, r, 2 * hit / (len(cited) + len(gold)))
    assert citations.prf(cited * 2, gold * 2) == pytest.approx(wanted)
    assert citations.prf([1], []) == (0.0, 0.0, 0.0) == citations.prf([], [1])


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("[DOC 0]", [0]),
        ("Relevant documents: DOC 3\nThe answer is: see [DOC 9]", [3]),
        ("Relevant documents: [DOC3]\nThe answer is: see [DOC 9]", [3]),
        ("Relevant documents: none\nThe answer is: see [DOC 9] and DOC 8", [9]),
        ("[DOC 2, 5; 2] and DOC 8", [2, 5]),
        ("DOC 4, Document #0, DOC -1", [4, 0]),
        ("<think>[DOC 7]</think>[DOC 1]", [1]),
    ],
)
def test_which_documents_are_cited(text: str, ids: list[int]) -> None:
    assert citations.cited_ids(text) == ids


def test_quotes_and_copies_are_distinct_and_not_empty() -> None:
    text = (
        "<think>Quote 1: no</think>Quote 1: “ a b ”\nQuote 2: \"\"\nPassage 3: a b\nExtract 4: 'c'\nAnswer: x"
    )
    assert citations.quotes(text) == ["a b", "c"]
    copied = "[DOC 1] , .\n[DOC 1] one\n[DOC 0]two.\n[DOC 1] three\nAnswer: x"
    assert citations.contents(copied) == {1: "one", 0: "two."}


# ---- words in a row --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_words_in_a_row(seed: int) -> None:
    draw = random.Random(seed)
    words, gold = draw.choices("abc", k=draw.randint(0, 7)), draw.choices("abc", k=draw.randint(1, 3))
    wanted = f" {' '.join(gold)} " in f" {' '.join(words)} "
    assert normalised.contains(words, gold) == wanted == normalised.contains(tuple(words), tuple(gold))


@pytest.mark.parametrize(
    ("text", "golds", "found"),
    [
        ("in DC", ["District of Columbia (DC)"], 1),
        ("the Do", ["District of Columbia (Do)"], 0),
        ("on 5 November 2009", ["2009-11-05"], 1),
        ("on 6 November 2009", ["2009-11-05"], 0),
        ("in November 2009", ["2009-11-05"], 0),
        ("on 5 November 2009", ["11/05/2009"], 1),
        ("on 2009-11-06", ["11/05/2009"], 0),
        ("in 2017", ["nothing", "2017"], 1),
        ("It was not Rome", ["not Rome", "x"], 1),
        ("He is not guilty.", ["not guilty (NG)"], 1),
        ("unknown", ["unknown"], 1),
        ("It is known.", ["unknown"], 0),
        ("", ["Rome"], 0),
        ("   ", ["The"], 0),
        ("Rome", [], 0),
        ("on May 3, 1990 and in June 1990", ["June 1990", "May 3, 1990"], 1),
        ("on May 7, 1990", ["May 1990", "June 3, 1990"], 1),
        ("on May 7, 1990", ["May 1990", "May 3, 1990"], 0),
    ],
)
def test_golds_and_answers_in_one_form(text: str, golds: list[str], found: int) -> None:
    assert normalised.subem_norm(text, golds) == found


# ---- extraction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: - 5 degrees", "- 5 degrees"),  # a minus, not a list
        ("Answer:\n- Paris\n- Rome", "Paris"),
        ("Answer:\n1914", "1914"),
        ("Answer:\n1. FC Köln", "1. FC Köln"),
        ("Answer:\n```json\nParis", "Paris"),
        ("Answer:\n- Note", "Note"),
        ("Answer: Yahoo! He won.", "Yahoo! He won"),  # two words are no sentence
        ("Answer: Yahoo! He won it.", "Yahoo!"),
        ("Answer: Bern. They play many games", "Bern. They play many games"),  # no verb that is known
        ("Answer: Oslo? The city", "Oslo?"),
        ("Answer: Oslo. The city", "Oslo. The city"),
        ("Answer: (Köln)", "(Köln)"),
        ("Answer: (Öln)", "(Öln)"),
        ("Answer: (nlÖ)", "(nlÖ)"),
        ("Answer: ((x))", "((x))"),
        ("Answer: <x>", "x"),
        ("Answer: «‘“'\"x\"'”’»", '"x"'),  # four layers at most
        ("Answer: x,;:", "x"),
        ("Answer: a\0b", "a\0b"),
        ("Answer: <answer>Oslo</answer> it is", "Oslo"),
        ("Answer:\n<final>\nOslo\n</final>", "Oslo"),
        ('Answer: "', ""),
        ("Answer: [DOC 1] Oslo [DOC 2].", "Oslo"),
        ("7.", "7"),
        ("(12)\n***", "12"),
        ("1.\n2.", ""),
        ("Sure!\n## City\nOslo", "Oslo"),
        ("Well:\n- Oslo\n- Bern", "Oslo"),
        ('{"answer": {"text": "Oslo"}}', "Oslo"),
        ('{"answer": {"a": "Oslo", "b": "x"}, "final_answer": ["Bern", 3]}', "Bern, 3"),
        ('{"answer": 0}', "0"),
        ('Oslo.\n{"answer": null, "x": 1}', "Oslo"),
        ('Oslo.\n{"answer": {"a": 1, "b": 2}}', "Oslo"),
        ('{"answer": false, "x": "Answer"}', "False"),
        ("\\boxed{Criterion 1: 1} It is Oslo.", "Criterion 1: 1"),
    ],
)
def test_what_an_answer_is(text: str, answer: str) -> None:
    assert extract_answer(text).text == answer


def test_what_is_looked_at_is_bounded() -> None:
    """Two hundred markers and ends of sentences, and a hundred thousand signs behind a marker."""
    for n, found in ((199, True), (200, False)):
        assert extract_answer("Answer: Oslo\n" + "Answer: <your answer>\n" * n + "end").found is found
    for n, cut in ((199, True), (200, False)):
        text = extract_answer("Answer: " + "St. " * n + "Oslo. It is the capital of Norway").text
        assert text.endswith("Oslo") is cut
    assert len(extract_answer("Answer:" + "x" * 200_000).text) == 100_000


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("7.\nQuestion: who?", "7."),
        ("→\nQuestion: who?", "→"),
        ("# City\nQuestion: who?\nOslo\nQuestion: why?", "# City\nQuestion: who?\nOslo"),
        ("City:\nQuestion: who?\nOslo\nQuestion: why?", "City:\nQuestion: who?\nOslo"),
        ("?\nQuestion: who?\nOslo", "?\nQuestion: who?\nOslo"),
        ("x" * 170 + ":\nQuestion: who?", "x" * 170 + ":"),
    ],
)
def test_where_the_model_has_answered(text: str, own: str) -> None:
    assert extract._own_turn(text) == own


def test_without_a_marker_everything_from_the_first_sentence_on_is_read() -> None:
    found = extract_answer("Sure!\n1.\n- Oslo is it.\n- Bern is not")
    assert found == ("Oslo is it", False, "Oslo is it.\nBern is not")
    assert extract_answer("  Oslo") == ("Oslo", False, "Oslo")


# ---- choices and summaries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "first", "newest"),
    [
        ("", 0, 0),
        ("B", 1, 1),
        ("C", 0, 0),
        ("Mars", 1, 1),
        ("Bingo", 1, 1),
        ("Cosmos B", 0, 1),
        ("answer is: B", 1, 1),
        ("the answer is: Mars, of course", 1, 1),
        ("the answer is Mars", 1, 1),
        ("answer is Mars", 1, 1),
        ("my option is B", 1, 1),
        ("the answer is: x Mars", 0, 0),
        ("the answer:C but the option is B", 0, 1),
        ("it must be B or so", 1, 1),
        ("it must be C, then B", 0, 1),
        ("it must be B\nC", 1, 1),
        ("I say\nB\nC", 1, 1),
        ("no letter here", 0, 0),
        ("so:   {B}", 1, 1),
    ],
)
def test_both_official_readings_of_a_choice(said: str, first: int, newest: int) -> None:
    assert (choice.acc_v1(said, "Mars", "B"), choice.acc(said, "Mars", "B")) == (first, newest)


def test_the_letter_of_longbench() -> None:
    for said, letter in (
        ("The correct answer is (B)", "B"), ("The correct answer is **(B)**", "B"), ("The correct answer is B", "B"),
        ("The correct answer is A, no: The correct answer is (C)", "C"), ("the correct answer is (B)", None),
        ("The correct answer is (E)", None), ("", None),
    ):  # fmt: skip
        assert choice.letter(said) == letter, said
        wanted = {"acc": float(letter == "B"), "parsed": float(letter is not None)}
        assert choice.score(said, "B") == wanted
    assert choice.score("<think>The correct answer is (B)</think>No.", "B") == {"acc": 0.0, "parsed": 0.0}


def longest(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by its definition."""
    if not a or not b:
        return 0
    return 1 + longest(a[1:], b[1:]) if a[0] == b[0] else max(longest(a[1:], b), longest(a, b[1:]))


@pytest.mark.parametrize("name", ["py", None])
@pytest.mark.parametrize("seed", range(10))
def test_rouge_of_a_line_is_its_longest_common_subsequence(seed: int, name: str | None) -> None:
    draw = random.Random(seed)
    said, *golds = (draw.choices(["red", "sea", "sun", "fog"], k=draw.randint(0, 6)) for _ in range(3))
    common = [longest(said, gold) for gold in golds]
    wanted = max(2 * n / (len(said) + len(gold)) if n else 0.0 for n, gold in zip(common, golds, strict=True))
    found = rouge.score(" ".join(said), [" ".join(gold) for gold in golds], name)
    assert found == pytest.approx(dict.fromkeys(rouge.VARIANTS, wanted))


def test_rouge_variants_are_what_they_are_named() -> None:
    for name in ("py", None):
        found = rouge.score("the cats\nran here", ["run here\ncats running\nthe cat"], name)
        stems = rouge.score("cats", ["cat"], name)
        assert stems == {"rougeLsum": 0.0, "rougeL": 0.0, "rougeL_stem": 1.0, "rougeLsum_stem": 1.0}
        assert found["rougeLsum"] > found["rougeL"] and found["rougeLsum_stem"] > found["rougeL_stem"]
        assert set(rouge.score("", [""], name).values()) == {0.0}
    assert rouge.engine("py").__name__ == "rouge_score.rouge_scorer"


def test_the_slow_engine_serves_where_the_fast_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score_rs", None)
    rouge.engine.cache_clear()
    assert rouge.engine().__name__ == "rouge_score.rouge_scorer"
    with pytest.raises(ImportError):
        rouge.engine("rs")
    rouge.engine.cache_clear()


def test_fields_of_an_extraction() -> None:
    made: Any = extract.Extracted("x", True)
    assert made == ("x", True, "")
