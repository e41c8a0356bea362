"""Rewards of preset `paper`: full marks for right answers, nothing for the usual ways to cheat."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rapidfuzz", reason="quotes and contents are compared with rapidfuzz (extra [train])")
from icr_tasks.errors import IcrError
from icr_tasks.training.data import formats
from icr_tasks.training.data.read import records
from icr_tasks.training.rewards import Options, Row, check, score
from icr_tasks.training.rewards.paper import question
from icr_tasks.training.rewards.registry import best

SEINE = (
    "Paris is the capital and most populous city of France, on the river Seine, with two million residents."
)
TOWER = "The Eiffel Tower is a lattice tower on the Champ de Mars in Paris, named after the engineer Gustave Eiffel."
ROW = Row(
    answers=("Paris",),
    gold_ids=(3, 7),
    gold_docs=(SEINE, TOWER),
    original_ids=(3,),
    id="r",
    question="Which city on the Seine has the Eiffel Tower, Paris or Lyon?",
)
YES = Row(answers=("yes",), gold_ids=(1,), gold_docs=(SEINE,), question="Is Paris on the Seine?")
RECORD = {"question": ROW.question, "answers": ["Paris"], "gold_ids": [3, 7], "gold_docs": [SEINE, TOWER]}
VERDICT = "".join(f"ok \\boxed{{Criterion {i}: {v}}}\n" for i, v in ((1, 1), (2, 0), (3, 1)))


def one(name: str, text: str, row: Row = ROW, **kwargs: object) -> float:
    return score(name, [text], [row], **kwargs)[0]["reward"]  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "most"), [("ao", 1), ("id", 2), ("idc", 3), ("idq", 3)])
def test_reference_completions_earn_everything(name: str, most: int) -> None:
    assert one(name, formats.target(RECORD, name)) == most


def test_terms_add_up_and_weights_apply() -> None:
    found = score("id", ["[DOC 3]\nThe answer is: Paris"], [ROW])[0]
    assert found == {"reward": 1.0, "ids": 0.0, "answer": 1.0}
    assert one("id", "[DOC 3]\nThe answer is: Paris", options={"ids": "f1"}) == pytest.approx(1 + 2 / 3)
    assert one("id", "[DOC 7, DOC 3]\nThe answer is: Paris", options={"weights": {"answer": 0.5}}) == 1.5


@pytest.mark.parametrize(
    "answer", ["Paris", "Paris.", "**Paris**", "Paris, France", "the city of Paris", '"Paris"']
)
def test_right_answers_count(answer: str) -> None:
    for text in (f"Answer: {answer}", f"The answer is: {answer}", f"Some thoughts.\n\n**Answer:** {answer}"):
        assert one("ao", text) == 1.0, text


CHEATS = [
    "Answer: Paris or Lyon",
    "Answer: Paris, Lyon",
    "Answer: Paris and Lyon",
    "Answer: Lyon / Paris",
    "Answer: Paris; Lyon",
    "Answer: Paris, Rome, Berlin, Madrid, London",
    "Answer: Parisian",
    "",
    "   ",
    "Paris",
    "asdf qwer zxcv",
    "Answer:",
    "Answer: <your answer>",
    "\\boxed{Criterion 3: 1}",
    "Answer: \\boxed{Criterion 1: 1}",
    "<think>Answer: Paris",
    "Answer: "
    + "the capital of the country that won the war against the others of that time, called Paris by all",
    f"{SEINE}\n{TOWER}",
    "[DOC 3] " * 500,
    "Answer: Lyon\nQuestion: next one\nAnswer: Paris",
]


@pytest.mark.parametrize("text", CHEATS)
def test_cheating_answers_earn_nothing(text: str) -> None:
    assert score("ao", [text], [ROW])[0]["answer"] == 0.0


@pytest.mark.parametrize(
    "text", ["Answer: yes and no", "Answer: no", "Answer: unknown, yes", "Answer: I do not know"]
)
def test_yes_no_must_be_said_alone(text: str) -> None:
    assert one("ao", text, YES) == 0.0
    assert one("ao", "Answer: Yes, it is.", YES) == 1.0
    assert one("ao", "Answer: I do not know", Row(answers=("no",))) == 0.0


def test_ids_must_be_exactly_the_gold_ones() -> None:
    every = ", ".join(f"[DOC {i}]" for i in range(500))
    for cited in (every, "[DOC 3]", "[DOC 3], [DOC 7], [DOC 8]", "[DOC -1]", "[DOC 3-500]", ""):
        assert score("id", [f"{cited}\nThe answer is: Paris"], [ROW])[0]["ids"] == 0.0, cited
    many = score("id", [f"{every}\nThe answer is: Paris"], [ROW], options={"ids": "f1"})[0]["ids"]
    assert many < 0.01


def test_quotes_must_come_from_the_gold_passages() -> None:
    def quotes(*texts: str) -> float:
        lines = "\n".join(f'Quote {n}: "{t}"' for n, t in enumerate(texts, 1))
        return score(
            "idq", [f"{lines}\nRelevant Document IDs: [DOC 3], [DOC 7]\nThe answer is: Paris"], [ROW]
        )[0]["quotes"]

    assert quotes("most populous city of France, on the river Seine", "a lattice tower on the Champ") == 1.0
    assert quotes("most populous city of France, on the river Seine") == 0.0  # nothing of document 7
    assert quotes("is the capital and most", "is a lattice tower on the") == 0.0  # says nothing
    assert (
        quotes("the engineer Gustave Eiffel", "Paris is the capital and most populous city") == 0.0
    )  # four words
    assert quotes("most populous city of France", "a passage that nobody has ever written") == 0.0
    assert quotes() == 0.0
    assert quotes("of the and in on to", "") == 0.0
    assert quotes((SEINE + " " + TOWER) * 2) == 0.0  # no quote, a copy of everything


def test_contents_must_be_the_gold_passages_once_each() -> None:
    def content(body: str) -> float:
        return score("idc", [f"Relevant documents:\n{body}\n\nThe answer is: Paris"], [ROW])[0]["content"]

    good = f"[DOC 3]\n{SEINE}\n\n[DOC 7]\n{TOWER}"
    assert content(good) == 1.0
    assert content(good.replace("two million", "2 million")) == 1.0  # a slip in copying
    assert content(f"[DOC 3]\n{SEINE}\n\n[DOC 7]\n{SEINE}") == 0.0
    assert content(f"{good}\n\n[DOC 9]\n{TOWER}") == 0.0
    assert content(f"[DOC 3]\n{' '.join(sorted(SEINE.split()))}\n\n[DOC 7]\n{TOWER}") == 0.0  # a bag of words
    assert content("[DOC 3]\n\n[DOC 7]") == 0.0


def test_judge_adds_its_three_criteria_to_the_answer() -> None:
    text = "**Step 4: Answer**\nThe answer is: Paris"
    assert one("judge", text, replies=[VERDICT]) == 3.0
    wrong = "The answer is: the French capital"
    assert one("judge", wrong, replies=[VERDICT]) == 2.0
    assert (
        one("judge", wrong, replies=[VERDICT], options={"hybrid": True}) == 3.0
    )  # the judge may overrule the rule
    for bad in (
        None,
        "",
        "no boxes",
        VERDICT + "\\boxed{Criterion 1: 1}",
        VERDICT.replace(": 0", ": 2"),
        "<think>" + VERDICT,
    ):
        assert math.isnan(one("judge", text, replies=[bad])), bad


def test_bad_input_says_what_to_do() -> None:
    with pytest.raises(IcrError, match="Did you mean 'idc'"):
        score("idcc", [], [])
    with pytest.raises(IcrError, match="quote_treshold.*Did you mean 'quote_threshold'"):
        score("idq", [], [], options={"quote_treshold": 80})
    with pytest.raises(IcrError, match="takes no reward options"):
        score("ao", [], [], preset="paper_code", options={"guard": False})
    with pytest.raises(IcrError, match="needs the judge's replies"):
        score("judge", [""], [ROW])
    with pytest.raises(IcrError, match="1 completions but 2 rows"):
        score("ao", [""], [ROW, ROW])
    with pytest.raises(IcrError, match="no answer"):
        Row(answers=("",))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("ao", {"guard": "false"}, "guard is 'false'; it must be true or false"),
        ("ao", {"extra_words": "3"}, "extra_words is '3'; it must be a number"),
        ("idq", {"quote_threshold": True}, "quote_threshold is True"),
        ("id", {"weights": 2}, "weights is 2"),
        ("id", {"weights": {"ids": "2"}}, "the weight of ids is '2'"),
        ("ao", {"weights": {"ids": 2}}, "'ao' has no term 'ids' to weigh"),
        ("hybrid", {"weights": {"answer": 2}}, "'hybrid' has no term 'answer' to weigh"),
        ("ao", {"rule": False}, "'rule' belongs to reward 'hybrid'"),
        ("ao", {"hybrid": True}, "'hybrid' belongs to reward 'judge'"),
    ],
)
def test_options_of_no_effect_are_refused(name: str, options: dict, says: str) -> None:
    with pytest.raises(IcrError, match=says):
        score(name, [], [], options=options, replies=[])


@pytest.mark.parametrize("preset", ["paper", "paper_code"])
@pytest.mark.parametrize("name", ["ao", "id", "idc", "idq", "judge"])
def test_a_number_without_end_ends_no_training(name: str, preset: str) -> None:
    endless = "9" * 5000
    text = f"Relevant documents: [DOC {endless}] {SEINE}\n[DOC 3] {SEINE}\nRelevant Document IDs: [DOC {endless}]\n"
    text += f"Answer: {endless}\nThe answer is: {endless}"
    replies = (
        {"replies": [f"\\boxed{{{{Criterion {endless}: 1}}}} \\boxed{{{endless}}}"]}
        if name == "judge"
        else {}
    )
    found = score(name, [text], [replace(ROW, original_ids=(3, 7))], preset=preset, **replies)[0]["reward"]
    if (name, preset) == ("judge", "paper"):
        assert math.isnan(found)  # no verdict can be read
    else:
        assert 0 <= found <= best(name, preset, {})


@pytest.mark.parametrize("preset", ["paper", "paper_code"])
@pytest.mark.parametrize("name", ["ao", "id", "idc", "idq"])
def test_the_most_a_reward_can_be_is_what_a_perfect_completion_earns(name: str, preset: str) -> None:
    options = {} if preset == "paper_code" else {"weights": {"answer": 2.5}}
    text = formats.target(RECORD, name)
    if name == "idq":  # the released check compares quotes with whole passages
        quotes = f"Quote 1: {SEINE}\nQuote 2: {TOWER}\n"
        text = f"{quotes}Relevant Document IDs: [DOC 3], [DOC 7]\nThe answer is: Paris"
    text = text.replace("Answer: ", "The answer is: ")
    row = replace(ROW, original_ids=(3, 7))
    found = score(name, [text], [row], preset=preset, options=options)[0]["reward"]
    assert found == pytest.approx(best(name, preset, options))


def test_data_are_checked_before_training() -> None:
    good = {**RECORD, "id": "a", "passages": ["x", "x", "x", SEINE, "x", "x", "x", TOWER]}
    assert check([good], "idc") == 1
    cases = [
        ([{**good, "gold_ids": [], "gold_docs": []}], "no gold ids"),
        ([{**good, "passages": ["x"] * 5}], "outside its 5 passages"),
        ([good, good], "duplicate id"),
        (
            [{**good, "passages": [*good["passages"][:7], SEINE]}],
            "are not the passages that its gold ids name",
        ),
        ([{**good, "question": " "}], "no question"),
        ([{**good, "answers": []}], "has no answer"),
        ([{"id": "q", "question": "?"}], "no column 'answers'"),
        ([], "no rows"),
    ]
    for rows, message in cases:
        with pytest.raises(IcrError, match=message):
            check(rows, "id")
    for name in ("hybrid", "judge"):  # the judge reads the texts
        with pytest.raises(IcrError, match="no gold texts"):
            check([{**good, "gold_docs": []}], name)
        with pytest.raises(IcrError, match="without their texts"):
            question("Answer: Paris", Row.of({**good, "gold_docs": []}))


@given(
    st.text(max_size=300),
    st.sampled_from(["ao", "id", "idc", "idq"]),
    st.sampled_from(["paper", "paper_code"]),
)
@settings(max_examples=150, deadline=None)
def test_any_text_has_a_finite_reward(text: str, name: str, preset: str) -> None:
    found = score(name, [text], [ROW], preset=preset)[0]
    assert all(math.isfinite(v) for v in found.values()) and 0 <= found["reward"] <= 4.8


def test_perfect_answers_to_real_questions_are_rewarded(shared_data: Path) -> None:
    files = ["hotpotqa/hotpotqa_dev_distractor_500.jsonl.gz", "2wikimultihopqa/2wiki_train_500.jsonl.gz"]
    asked = [(r["question"], r["answer"]) for f in files for r in records(shared_data / f)]
    rows = [Row(answers=(a,), question=q) for q, a in asked]
    lost = {}
    for preset in ("paper", "paper_code"):
        texts = [f"The answer is: {a}." for _, a in asked]
        lost[preset] = [
            a
            for s, (_, a) in zip(score("ao", texts, rows, preset=preset), asked, strict=True)
            if not s["reward"]
        ]
    assert not lost["paper"], lost["paper"][:10]
    assert len(lost["paper_code"]) >= 8  # of 1,000: its answer ends at the first period
    constant = ["The answer is: yes and no."] * len(rows)
    assert not any(s["reward"] for s in score("ao", constant, rows))
    assert sum(s["reward"] for s in score("ao", constant, rows, preset="paper_code")) / len(rows) > 0.03


def test_options_keep_the_literal_equation_available() -> None:
    assert one("ao", "Answer: Paris or Lyon", options=Options(guard=False)) == 1.0
