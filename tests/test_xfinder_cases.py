"""Multiple choice by extraction, without a model: metrics of an extraction, and the reduction of an answer to its letter."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xfinder_standin import OPTIONS, case

from icr_tasks.metrics.xfinder_cases import NO_ANSWER, ChoiceCase, Extraction, metrics, to_letter


class Reader:
    """Takes what it is given for the extraction."""

    name = "reader"

    def extract(self, cases: Sequence[ChoiceCase]) -> list[Extraction]:
        return [Extraction(to_letter(c, c.response)) for c in cases]

    def correct(self, case: ChoiceCase, extracted: str) -> bool:
        return to_letter(case, extracted) == case.gold


def test_metrics_of_an_extraction() -> None:
    texts = ["B", "(B).", "Mars", "B. Mars", NO_ANSWER, "A"]
    cases, reader = [case(t) for t in texts], Reader()
    rows = [metrics(reader, c, f) for c, f in zip(cases, reader.extract(cases), strict=True)]
    assert [r["acc_xfinder"] for r in rows] == [1, 1, 1, 1, 0, 0]
    assert [r["no_valid_answer_rate"] for r in rows] == [0, 0, 0, 0, 1, 0]
    assert metrics(reader, cases[0], Extraction(None, "x")) == {"extract_error_rate": 1.0}


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
    [extracted] = Reader().extract([case(text)])
    row = metrics(Reader(), case(text), extracted)
    assert set(row.values()) <= {0.0, 1.0} and json.dumps(row)
