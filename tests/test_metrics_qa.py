"""Answer extraction, SubEM and its variants, citations: hand-made cases and properties."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks.metrics import answers, citations
from icr_tasks.metrics.answers import em, f1, normalize, normalize_official, subem, subem_official, subem_word
from icr_tasks.metrics.extract import extract_answer
from icr_tasks.metrics.option_reader import pick

CASES = [
    ("The answer is: St. Louis.", "St. Louis"),
    ("Answer: J. K. Rowling.", "J. K. Rowling"),
    ("The answer is 3.5 million.", "3.5 million"),
    ("The answer is Paris.", "Paris"),
    ("The answer is New York City.", "New York City"),
    ("Answer: 1,000", "1,000"),
    ("**The answer is: Paris**", "Paris"),
    ("**Answer:** Paris", "Paris"),
    ("Answer: **Paris**.", "Paris"),
    ("**Step 4: Answer**\nThe answer is: Dr. Seuss", "Dr. Seuss"),
    ("Answer: U.S. Route 66.", "U.S. Route 66"),
    ('The answer is "Lou Gehrig\'s Disease".', "Lou Gehrig's Disease"),
    ("<think>The answer is: London</think>The answer is: Paris", "Paris"),
    ("<think>The answer is London", ""),
    ("thoughts...</think>\nAnswer: Rome", "Rome"),
    ("To answer the question, we look. The answer is: Rome.", "Rome"),
    ("Answer: Rome\nThis answers the question because", "Rome"),
    ("Answer:\nDon Shula", "Don Shula"),
    ("The correct answer is (C).", "C"),
    ("Answer: Paris<|im_end|>", "Paris"),
    ("Paris", "Paris"),
    ("Paris is the capital.\nMore", "Paris is the capital"),
    ("\\boxed{42}", "42"),
    ("The answer is \\boxed{42}.", "42"),
    ("Answer: Paris. The capital of France has been here.", "Paris"),
    ("Answer: Washington, D.C.", "Washington, D.C."),
    ("Answer: Apple Inc.", "Apple Inc."),
    ("The answer is: yes", "yes"),
    ("Answer: <your answer>.\nAnswer: Oslo", "Oslo"),
    ("The answer to the question is: Oslo", "Oslo"),
    ("final answer: Oslo", "Oslo"),
    ("", ""),
    ("The answer is: not found in the documents.", "not found in the documents"),
    ("Relevant documents: [DOC 3]\nThe answer is: Ann Lee.", "Ann Lee"),
    ("The answer is: 12 May 1853.", "12 May 1853"),
    ("Answer: John F. Kennedy Jr.", "John F. Kennedy Jr."),
    ("Answer: Who Framed Roger Rabbit? A film", "Who Framed Roger Rabbit?"),
    ("Answer: [Paris]", "Paris"),
    ("Answer: (Paris)", "Paris"),
    ("The answer is 'Paris'", "Paris"),
    ("Answer: “Paris”", "Paris"),
    ("Answer: Mt. Everest is the highest.", "Mt. Everest is the highest"),
    ("ANSWER: PARIS", "PARIS"),
    ("The Answer is: Vitamin B.", "Vitamin B."),
    ("Answer: Oslo\n\nQuestion: next?\nAnswer: Rome", "Oslo"),
    ("The answer is: Köln.", "Köln"),
    ("Answer: 東京", "東京"),
    ("The answer is: No.", "No."),
    ("My final answer is Paris", "Paris"),
    ("I think the correct answer would be: Paris.", "Paris"),
]


@pytest.mark.parametrize(("text", "answer"), CASES, ids=[c[0][:30] for c in CASES])
def test_extraction(text: str, answer: str) -> None:
    assert extract_answer(text).text == answer


def test_found_tells_a_marker_from_a_guess() -> None:
    assert extract_answer("The answer is: x").found
    assert not extract_answer("x").found


@pytest.mark.parametrize(
    ("pred", "golds", "plain", "word"),
    [
        ("unknown", ["no"], 1, 0),
        ("no", ["no"], 1, 1),
        ("female", ["male"], 1, 0),
        ("in 1991", ["1"], 1, 0),
        ("!!!", ["The The"], 0, 0),
        ("the the", ["The The"], 1, 1),
        ("anything", [""], 0, 0),
        ("Wilhelm Conrad Rontgen", ["Wilhelm Conrad Röntgen"], 1, 1),
        ("don’t look", ["Don't Look"], 1, 1),
        ("London", ["Paris", "london"], 1, 1),
        ("the 9th century AD", ["9th century"], 1, 1),
        ("x-ray", ["xray"], 1, 1),
        ("x", [], 0, 0),
    ],
)
def test_subem(pred: str, golds: list[str], plain: int, word: int) -> None:
    assert (subem(pred, golds), subem_word(pred, golds)) == (plain, word)


def test_official_variant_keeps_its_quirks() -> None:
    assert subem_official("anything", ["The"]) == 1.0
    assert subem_official("Unicode cafe", ["Ünïcode café"]) == 0.0
    assert subem_official("artful", ["art"]) == 1.0


def test_em_and_f1() -> None:
    assert em("The Paris.", ["paris"]) == 1.0 and em("", [""]) == 0.0
    assert f1("yes it is", ["yes"]) == 0.0
    assert f1("red apple", ["red pear"]) == pytest.approx(0.5)


def test_helmet_official_takes_the_better_of_raw_and_parsed() -> None:
    assert answers.helmet_official(" Paris\nmore", ["paris"]) == {"subem": 1.0, "em": 1.0, "f1": 1.0}
    assert answers.helmet_official("\nDon Shula", ["Don Shula"])["em"] == 0.0


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("[DOC 3], [DOC 7]\nThe answer is: x", [3, 7]),
        ("[DOC 3, DOC 7]", [3, 7]),
        ("[doc 3] [DOC 3]", [3]),
        ("[DOC -1]\nThe answer is: x", []),
        ("Relevant Document IDs: [DOC 1], [DOC 2]\nThe answer is: [DOC 9] says", [1, 2]),
        ("According to DOC 4, Document 5 states", [4, 5]),
        ("", []),
    ],
)
def test_cited_ids(text: str, ids: list[int]) -> None:
    assert citations.cited_ids(text) == ids


def test_citation_scores() -> None:
    assert citations.prf([1, 2], [2, 3]) == (0.5, 0.5, 0.5)
    assert citations.prf([], []) == (1.0, 1.0, 1.0)
    assert citations.prf([], [1]) == (0.0, 0.0, 0.0)


def test_quotes_and_contents() -> None:
    text = 'Quote 1: "a b c"\nQuote 2: "d e"\nRelevant Document IDs: [DOC 1]\nThe answer is: x'
    assert citations.quotes(text) == ["a b c", "d e"]
    assert citations.contents(
        "Relevant documents:\n[DOC 2]\nfull text\n\n[DOC 4]\nmore\nThe answer is: x"
    ) == {
        2: "full text",
        4: "more",
    }


TEXT = st.text(max_size=300)


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_nothing_raises_and_the_answer_stands_in_the_text(text: str) -> None:
    answer = extract_answer(text).text
    squeezed = "".join(c for c in text if c not in "*_` \n")
    assert "".join(c for c in answer if c not in "*_` \n") in squeezed.replace(
        "**", ""
    )  # only markup is dropped
    citations.cited_ids(text), citations.quotes(text), citations.contents(text)


@settings(max_examples=200, deadline=None)
@given(TEXT, st.lists(TEXT, max_size=3))
def test_word_bounds_only_take_away(pred: str, golds: list[str]) -> None:
    assert subem_word(pred, golds) <= subem(pred, golds)
    assert em(pred, golds) <= subem(pred, golds)
    assert 0.0 <= f1(pred, golds) <= 1.0
    assert normalize(normalize(pred)) == normalize(pred)
    assert normalize_official(normalize_official(pred)) == normalize_official(pred)


@settings(max_examples=100, deadline=None)
@given(st.from_regex(r"[A-Z][a-z]{1,8}( [A-Z][a-z]{1,8}){0,2}", fullmatch=True))
def test_an_answer_in_the_asked_format_is_found(name: str) -> None:
    for form in ("The answer is: {}.", "Answer: {}", "**Answer:** {}", "[DOC 1]\nThe answer is: {}"):
        # the dot of an abbreviation ("Rd.") stays
        assert extract_answer(form.format(name)).text.removesuffix(".") == name


@pytest.mark.parametrize(
    ("text", "answer", "formal"),
    [
        ("I first thought of \\boxed{Rome}, but it is \\boxed{Bern}, as said above.", "Bern", True),
        (
            "I thought of <answer>Rome</answer> at first. Now: <answer>Bern</answer> and no more.",
            "Bern",
            True,
        ),
        (
            "Either \\boxed{Rome} or <answer>Bern</answer> would do, and \\boxed{Oslo} would not.",
            "Bern",
            True,
        ),
        ("Give <answer>your answer</answer> so. Then \\boxed{Oslo} is it.", "Oslo", True),
        ("It is Oslo.\nI was to write \\boxed{your answer} here.", "It is Oslo.", False),
        ("It is Oslo.\n\\boxed{}", "It is Oslo.", False),
    ],
)
def test_the_last_tag_else_the_last_box_else_a_sentence(text: str, answer: str, formal: bool) -> None:
    found = extract_answer(text)
    assert (found[0].rstrip("."), found[1]) == (answer.rstrip("."), formal)


@pytest.mark.parametrize(
    ("value", "answer"),
    [("42, 'x': 1}", "42"), ("Bern] or so", "Bern"), ("'Bern, city', 'x': 1}", "Bern, city"), ('"Bern', "Bern"),
     ('"Bern, city", "x": 1}', "Bern, city"), ("Bern\nand more", "Bern")],
)  # fmt: skip
def test_a_value_that_is_no_json_ends_at_its_quote_or_comma(value: str, answer: str) -> None:
    found = extract_answer(f"{{'answer': {value}")
    assert (found.text, found.found) == (answer, True)


@pytest.mark.parametrize(
    ("text", "em_of"),
    [
        ("Bern", True),
        ("Bern.\nAs the passage says.", True),  # the line after "Answer:"
        ("I think so\nAnswer: Bern\nfor that", False),  # the first of two counts
        ("As said, Bern", False),
    ],
)
def test_helmet_official_of_a_completion_and_of_a_chat(text: str, em_of: bool) -> None:
    """A completion follows "Answer:"; a chat's answer is its line of that name, else its first line."""
    assert answers.helmet_official(text, ["Bern"])["em"] == float(em_of)
    chat = {
        "Bern": 1.0,
        "Bern\nso it is": 1.0,
        "So it is\nBern": 0.0,
        "Well:\nAnswer: Bern\nso it is": 1.0,
        "answer: Bern": 1.0,
    }
    for said, found in chat.items():
        assert answers.helmet_official(said, ["Bern"], completion=False)["em"] == found, said


EMPTY_FORMS = (
    "\\boxed{}", "\\boxed{ }", "$\\boxed{}$", "\\boxed{\\text{}}", "\\boxed{your answer}", "<answer></answer>",
    "<answer>", "<final> \n</final>", "<answer>\\boxed{}</answer>", "Answer:", "**Answer:**", "Final answer: ****",
    "Answer: \"\"", "The answer is \\boxed{}.", "The answer is: \\boxed{}", '{"answer": ""}', '{"answer": null}',
    '{"final_answer": []}', '```json\n{"answer": {}}\n```', "****", "\\boxed{}\nAnswer:",
)  # fmt: skip


@pytest.mark.parametrize("form", EMPTY_FORMS)
def test_an_empty_form_takes_no_answer_away(form: str) -> None:
    """Alone it is no answer; beside one, in whatever form, the other counts."""
    assert extract_answer(form) == ("", False, "")
    for joint in (" ", "\n", "\n\n"):
        assert extract_answer(f"It is Oslo.{joint}{form}") == ("It is Oslo", False, "It is Oslo.")
        for formal in ("Answer: Oslo", "\\boxed{Oslo}", "<answer>Oslo</answer>", '{"answer": "Oslo"}'):
            assert extract_answer(f"{formal}{joint}{form}") == ("Oslo", True, "Oslo"), formal
    assert answers.score(f"Answer: Oslo {form}", ["Oslo"])["em"] == 1.0
    for text in (f"B\n{form}", f"It is Mars. {form}", f"{form}\nB"):
        assert pick(text, ["The Moon", "Mars", "Venus", "Pluto"]) == "B", text
    assert pick(form, ["The Moon", "Mars", "Venus", "Pluto"]) is None


@pytest.mark.parametrize(
    "text", ["The answer is ****. It is Oslo.", "\\boxed{} It is Oslo.", "<answer></answer>It is Oslo.",
             "**Final answer:** \\boxed{}\n\nIt is Oslo.", "The answer is \\boxed{}. It is Oslo."],
)  # fmt: skip
def test_what_follows_an_empty_form_is_read(text: str) -> None:
    assert extract_answer(text).text == "It is Oslo"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"reason": "so it says", "answer": ""}', '{"reason": "so it says", "answer": ""}'),
        ("I do not know what the answer is.", "I do not know what the answer is"),
        ("\\boxed{ {x} }", "{x}"),
        ("**Answer:****Oslo**", "Oslo"),
    ],
)
def test_what_only_looks_empty_stays(text: str, answer: str) -> None:
    assert extract_answer(text).text == answer
