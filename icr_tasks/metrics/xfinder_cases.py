"""Multiple choice by extraction: cases in, one extraction each, metrics out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NO_ANSWER = "[No valid answer]"
_LETTER_FORM = re.compile(r"\(?([A-Za-z])\)?[.:)]?(?:\s+(?=\S)(.*))?", re.S)


@dataclass(frozen=True, slots=True)
class ChoiceCase:
    """One generation for a question with options; `gold` is the right letter."""

    id: str
    question: str
    options: tuple[str, ...]
    gold: str
    response: str

    @property
    def range(self) -> list[list[str]]:
        """[["A", text], ...] as xFinder's answer range."""
        return [[letter, text] for letter, text in zip(LETTERS, self.options, strict=False)]

    @property
    def asked(self) -> str:
        """Question and options in one line, in the form xFinder's own benchmarks use."""
        return f"{self.question} Answer Choices: " + " ".join(
            f"({letter}) {text}" for letter, text in self.range
        )


@dataclass(frozen=True, slots=True)
class Extraction:
    """`text` is the extracted answer, None when extraction failed, and then `error` says why."""

    text: str | None
    error: str | None = None


class Extractor(Protocol):
    """Finds the answer in each generation. `name` goes into the data sheet of the results."""

    name: str

    def extract(self, cases: Sequence[ChoiceCase]) -> list[Extraction]:
        """One extraction a case, in order."""

    def correct(self, case: ChoiceCase, extracted: str) -> bool:
        """The lenient comparison: is what was extracted the right option, by letter or text?"""


def to_letter(case: ChoiceCase, extracted: str) -> str:
    """`B`, `(B)`, `B.`, `B. its text` and exactly its text become B; anything else stays as it is."""
    text = extracted.strip()
    plain = [option.strip().rstrip(".").lower() for option in case.options]
    if text.rstrip(".").lower() in plain and plain.count(text.rstrip(".").lower()) == 1:
        return LETTERS[plain.index(text.rstrip(".").lower())]
    found = _LETTER_FORM.fullmatch(text)
    if found is None or found[1].upper() not in LETTERS[: len(plain)]:
        return text
    letter = found[1].upper()
    said = (found[2] or "").strip().rstrip(".").lower()
    return letter if not said or said == plain[LETTERS.index(letter)] else text


def metrics(extractor: Extractor, case: ChoiceCase, found: Extraction) -> dict[str, float]:
    """acc_xfinder (letter equality, as the paper counts), acc_xfinder_cmp, no_valid_answer_rate,
    extract_error_rate.

    A failed extraction has no accuracy: it is an error, not a wrong answer.
    """
    if found.text is None:
        return {"extract_error_rate": 1.0}
    text = found.text.strip()
    return {
        "acc_xfinder": float(text.upper() == case.gold),
        "acc_xfinder_cmp": float(extractor.correct(case, text)),
        "no_valid_answer_rate": float(text.lower() == NO_ANSWER.lower()),
        "extract_error_rate": 0.0,
    }
