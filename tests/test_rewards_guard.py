"""The answer guard: decided by what an answer names. Lists earn nothing, honest forms everything."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rapidfuzz", reason="quotes and contents are compared with rapidfuzz (extra [train])")
import reward_hacks

from icr_tasks.metrics.extract import extract_answer
from icr_tasks.training.data import keychain
from icr_tasks.training.rewards import Row, score
from icr_tasks.training.rewards.match import marked

CITY = Row(
    answers=("Paris",),
    question="Which city on the Seine has the Eiffel Tower, Paris or Lyon?",
    gold_docs=("Paris is the capital of France.",),
    gold_ids=(3,),
)
YEAR = Row(answers=("1889",), question="When was the tower opened?")
BRIDGE = Row(
    answers=("Chief of Protocol",),
    question="What government position was held by the woman who portrayed Corliss Archer in the film Kiss "
    "and Tell?",
    gold_ids=(0,),
    gold_docs=("Shirley Temple was named Chief of Protocol of the United States in 1976.",),
)
OLDER = Row(answers=("Brad Pitt",), question="between brad pitt and tom cruise who is older")
LOWER = Row(answers=("lambeau field",), question="what was the packers stadium called before lambeau field")
STEAK = Row(answers=("$72",), question="how much is a 72 oz steak at the big texan")


def earns(text: str, row: Row) -> float:
    return score("ao", [text], [row])[0]["answer"]


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("Answer: not Paris", CITY),
        ("Answer: It is definitely not Paris but Lyon", CITY),
        ("Answer: Paris is wrong", CITY),
        ("Answer: anything except Paris", CITY),
        ("Answer: Lyon Nice Lille Paris Metz Rennes", CITY),
        ("Answer: [Lyon] [Nice] [Paris]", CITY),
        ("Answer: Lyon, Nice, Paris", CITY),
        ("Answer: Paris\nLyon", CITY),
        ("Answer: Paris. Lyon.", CITY),
        ("Answer: Paris, which is Lyon", CITY),
        ("Answer: <b>Paris</b> <i>Lyon</i>", CITY),
        ("Answer: Paris [DOC 3] Lyon [DOC 4]", CITY),
        ("<answer>Paris & Lyon</answer>", CITY),
        ("Answer: 1887 1888 1889 1890 1891", YEAR),
        ("Answer: 1888-1889 or 1889", YEAR),
        ("Answer: 1889 Paris", YEAR),
        ("Answer: Kiss and Tell & Chief of Protocol", BRIDGE),
        ("Answer: Chief of Protocol; Secretary of State", BRIDGE),
        ("Answer: paris lyon", CITY),
        (
            "Answer: American actor",
            Row(
                answers=("American",),
                question="What nationality?",
                gold_docs=("an American actor",),
                gold_ids=(0,),
            ),
        ),
        (
            "Answer: American actor",
            Row(
                answers=("actor",),
                question="What occupation?",
                gold_docs=("an American actor",),
                gold_ids=(0,),
            ),
        ),
        ("Answer: France, Spain", Row(answers=("France",))),
        ("Answer: yes American", Row(answers=("yes",), question="Is he a singer?")),
        ("Answer: yes, false", Row(answers=("yes",))),
        ("Answer: no, true", Row(answers=("no",))),
        ("Answer: yes Paris", CITY),
        ("Answer: brad pitt tom cruise", OLDER),
        ("Answer: brad pitt over tom cruise", OLDER),
        ("Answer: between brad pitt and tom cruise who is older", OLDER),
        ("Answer: tom cruise 🙂 brad pitt", OLDER),
        ("Answer: what was the packers stadium called before lambeau field", LOWER),
        ("Answer: how much is a 72 oz steak at the big texan", STEAK),
        ("Answer: paris lyon", Row(answers=("Paris",), question="which is older paris vs lyon")),
        ("Answer: paris lyon", Row(answers=("Paris",), question="which is older paris vs. lyon?")),
        ("Answer: it is not yes", Row(answers=("yes",))),
        ("Answer: 3<sup>4</sup> 5", Row(answers=("3",))),
        ("Answer: Paris [^3] Lyon [^4]", CITY),
    ],
)
def test_lists_negations_and_hedges_earn_nothing(text: str, row: Row) -> None:
    assert earns(text, row) == 0.0


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("Answer: Paris (see [DOC 3] and [DOC 7])", CITY),
        ("Answer: Paris; according to the documents.", CITY),
        ("Answer: $\\text{Paris}$", CITY),
        ("Answer: \\(\\mathrm{Paris}\\)", CITY),
        ("<answer>Paris</answer>", CITY),
        ("Answer: Paris, France", CITY),
        ("Answer: Paris, which is stated in the second passage.", CITY),
        ("Answer: Paris because the third document says so", CITY),
        ("Answer: the city of Paris", CITY),
        ("Answer: Paris, as stated in Document 3, which describes it.", CITY),
        ("Answer: Paris\n\nExplanation: Lyon lies on the Rhône.", CITY),
        (
            "Answer: Paris\nThe tower was built in Paris for the fair of 1889, and Lyon never had one of "
            "that size.",
            CITY,
        ),
        ("Answer: Chief of Protocol of the United States", BRIDGE),
        ("Answer: she held the position of Chief of Protocol", BRIDGE),
        ("Answer: World Health Organization (WHO)", Row(answers=("World Health Organization",))),
        ("Answer: in the year 1889", YEAR),
        ("Answer: New York City (NYC)", Row(answers=("NYC", "New York City"))),
        (
            "Answer: Yes, both are American.",
            Row(answers=("yes",), question="Are Mark King and Nick Hexum American?"),
        ),
        ("Answer: No, they are not.", Row(answers=("no",), question="Are they twins?")),
        ("Answer: Austin, Texas, United States", Row(answers=("Austin",))),
        ("Answer: Brad Pitt", OLDER),
        ("Answer: brad pitt is older", OLDER),
        ("Answer: the novel Foo", Row(answers=("Foo",), question="Is the novel Foo or the film Bar older?")),
        ("Answer: It is yes.", Row(answers=("yes",))),
        ("Answer: I believe it is 1889.", YEAR),
        ("Answer: $72", STEAK),
        ("Answer: it is $72", STEAK),
        ("Answer: Paris<sup>3</sup>", CITY),
        ("Answer: Paris[^3]", CITY),
        ("Answer: Paris <sup>[3, 7]</sup>", CITY),
    ],
)
def test_honest_forms_earn_everything(text: str, row: Row) -> None:
    assert earns(text, row) == 1.0


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Answer: Paris", True),
        ("<answer>Paris</answer>", True),
        ("The answer is: Paris\n<answer>Paris</answer>", True),
        ("<answer>Lyon</answer>\nAnswer: Paris", True),
        ("Answer: Lyon\n<answer>Paris</answer>", False),  # the metric reads the marker, not the tag
        ("Answer：Paris", True),
        ("**Final answer**：Paris", True),
        ("| Answer | Paris |", False),  # no marker to the metric either: it searches the whole text
        ("Answer - Paris", False),
    ],
)
def test_the_answer_that_is_rewarded_is_the_one_that_evaluation_reads(text: str, read: bool) -> None:
    found = extract_answer(text)
    assert read == (found.found and found.text == "Paris")
    assert (marked(text) is not None) == found.found
    assert earns(text, CITY) == float(read)


NAME = st.text(alphabet=string.ascii_letters, min_size=3, max_size=9).map(str.capitalize)
SEPARATOR = st.text(alphabet=st.characters(exclude_categories=["L", "M", "N", "Cs"]), min_size=1, max_size=3)


@given(st.lists(NAME, min_size=2, max_size=2, unique_by=str.lower), SEPARATOR, st.booleans())
@settings(max_examples=400, deadline=None)
def test_two_options_of_a_question_earn_nothing_whatever_joins_them(
    pair: list[str], separator: str, first: bool
) -> None:
    row = Row(answers=(pair[0] if first else pair[1],), question=f"Which came first, {pair[0]} or {pair[1]}?")
    assert earns(f"Answer: {pair[0]}{separator}{pair[1]}", row) == 0.0, repr(separator)


@pytest.fixture(scope="module")
def asked(shared_data: Path) -> list[reward_hacks.Asked]:
    return reward_hacks.load(shared_data)


def _few(asked: list[reward_hacks.Asked], count: int, *sources: str) -> list[reward_hacks.Asked]:
    group = [a for a in asked if a.source in sources]
    return group[:: max(1, len(group) // count)]


def test_both_gold_titles_earn_at_most_one_percent(asked: list[reward_hacks.Asked]) -> None:
    multi = _few(asked, 250, "hotpotqa", "2wiki")
    for group in (reward_hacks.comparisons([a for a in asked if a.source in ("hotpotqa", "2wiki")]), multi):
        assert len(group) > 60
        found = reward_hacks.listing(group)
        assert max(found.values()) <= 0.01, max(found.items(), key=lambda x: x[1])


@pytest.mark.parametrize("source", list(reward_hacks.FILES))
def test_no_template_that_does_not_read_beats_the_best_guess(
    source: str, asked: list[reward_hacks.Asked]
) -> None:
    group = _few(asked, 300, source)
    single, found, templates = reward_hacks.search(group, tries=40)
    assert found - single <= 0.01, templates
    assert single < 0.5


@pytest.mark.parametrize("form", list(reward_hacks.HONEST))
def test_honest_forms_of_real_answers_are_rewarded(form: str, asked: list[reward_hacks.Asked]) -> None:
    text = reward_hacks.HONEST[form]
    assert reward_hacks.rate(asked, lambda a: text.format(a.row.answers[0])) >= 0.99


def test_ids_quotes_and_contents_are_not_earned_by_less() -> None:
    docs = (
        "Paris is the capital and most populous city of France, on the river Seine.",
        "The Eiffel Tower is a lattice tower on the Champ de Mars in Paris.",
    )
    row = Row(answers=("Paris",), gold_ids=(3, 7), gold_docs=docs)
    swapped = f"[DOC 3]\n{docs[1]}\n\n[DOC 7]\n{docs[0]}\n\nThe answer is: Paris"
    assert score("idc", [swapped], [row])[0]["content"] == 0.0
    assert score("idc", [swapped], [row], options={"guard": False})[0]["content"] == 1.0
    stop = (
        'Quote 1: "is the capital and most"\n' * 20
        + "Relevant Document IDs: [DOC 3], [DOC 7]\nThe answer is: Paris"
    )
    assert score("idq", [stop], [row])[0]["quotes"] == 0.0
    stubs = tuple(
        f"{name} is a village in Fars Province, Iran. At the 2006 census, its population was {n}, in {n // 4} families."
        for name, n in (("Abad", 180), ("Deh", 92))
    )
    villages = Row(answers=("yes",), gold_ids=(0, 1), gold_docs=stubs)
    tail = "Relevant Document IDs: [DOC 0], [DOC 1]\nThe answer is: yes"
    one = f'Quote 1: "Province, Iran. At the 2006 census, its population"\n{tail}'
    both = (
        f'Quote 1: "Abad is a village in Fars Province"\nQuote 2: "Deh is a village in Fars Province"\n{tail}'
    )
    assert score("idq", [one, both], [villages, villages]) == [
        {"reward": 2.0, "ids": 1.0, "quotes": 0.0, "answer": 1.0},
        {"reward": 3.0, "ids": 1.0, "quotes": 1.0, "answer": 1.0},
    ]
    text = " ".join(f"word{i}" for i in range(60))
    windows = Row(answers=("yes",), gold_ids=(0, 1), gold_docs=(text[:360], text[60:]))  # of one paragraph
    shared = f'Quote 1: "{" ".join(f"word{i}" for i in range(20, 30))}"\n{tail}'
    assert score("idq", [shared], [windows])[0]["quotes"] == 1.0
    aside = "[DOC 3] and [DOC 7] say so. [DOC 5] is not relevant.\nThe answer is: Paris"
    assert score("id", [aside], [row])[0]["ids"] == 1.0


def test_behind_a_chain_of_keys_the_hidden_question_is_the_one_that_is_answered() -> None:
    text = "Were Aladdin and Song of the South produced by the same company?"
    doc = "Aladdin and Song of the South are films of Walt Disney."
    row = {"id": "1", "question": text, "gold_texts": [doc], "negatives": []}
    hid = keychain.hide(row, [], 3, 0)
    docs = tuple(hid["gold_texts"])
    behind = Row(answers=("yes",), question=hid["question"], gold_docs=docs, gold_ids=tuple(range(len(docs))))
    said = "Answer: Yes, Aladdin and Song of the South were produced by the same company."
    assert earns(said, behind) == earns(said, replace(behind, question=text)) == 1.0
    assert earns("Answer: no, yes", behind) == 0.0
