"""Multiple choice by extraction, without a model: the regex extractor and the reduction of an answer to its
letter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xfinder_standin import OPTIONS, case

from icr_tasks.metrics.xfinder_cases import Extraction, RegexExtractor, metrics, to_letter


def test_regex_extractor_has_the_same_interface() -> None:
    extractor = RegexExtractor()
    texts = [
        "The answer is B",
        "The answer is (B).",
        "The answer is Mars.",
        "The answer is B. Mars",
        "I do not know",
        "The answer is A",
    ]
    cases = [case(t) for t in texts]
    rows = [metrics(extractor, c, f) for c, f in zip(cases, extractor.extract(cases), strict=True)]
    assert [r["acc_xfinder"] for r in rows] == [1, 1, 1, 1, 0, 0] and [
        r["no_valid_answer_rate"] for r in rows
    ] == [
        0,
        0,
        0,
        0,
        1,
        0,
    ]
    assert metrics(extractor, cases[0], Extraction(None, "x")) == {"extract_error_rate": 1.0}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B.", "B"),
        ("B) Mars", "B"),
        ("Mars", "B"),
        ("mars.", "B"),
        ("B: Light housework", "B: Light housework"),
        ("E", "E"),
        ("Be careful", "Be careful"),
        ("A lot", "A lot"),
        ("", ""),
        ("(B", "B"),
    ],
)
def test_to_letter(text: str, letter: str) -> None:
    assert to_letter(case(""), text) == letter


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from([*OPTIONS, "A", "B", "(", ")", ".", " ", "\n", "The answer is"]), max_size=8
    ).map("".join)
)
def test_no_text_breaks_the_parsers(text: str) -> None:
    found = to_letter(case(""), text)
    assert found in ("A", "B", "C", "D") or found == text.strip()
    [extracted] = RegexExtractor().extract([case(text)])
    assert isinstance(extracted.text, str)
    row = metrics(RegexExtractor(), case(text), extracted)
    assert set(row.values()) <= {0.0, 1.0} and json.dumps(row)
