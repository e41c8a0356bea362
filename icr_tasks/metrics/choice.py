"""InfiniteBench En.MC: both official scorers (src/compute_scores.py at 51d9b37b and at 88b3daa).

Each says whether a generation picks the right option, given the option text and its letter.
"""

from __future__ import annotations

import re

from .extract import strip_thoughts

_LETTERS = "ABCD"
_LETTER = re.compile(r"\b[A-D]\b")
_MARKERS = ("answer is:", "answer:", "answer is", "option is")
_NOISE = str.maketrans(dict.fromkeys("\n\"'.,?!{}", " "))


def acc_v1(generation: str, text: str, letter: str) -> float:
    """The scorer behind the published table (88b3daa): leading letter, exact answer, after a marker, first
    lone letter."""
    pred = generation.strip()
    if not pred:
        return 0.0
    if pred[0] in _LETTERS:
        return float(pred[0] in (text, letter))
    if pred in (text, letter):
        return 1.0
    plain = _squeeze(pred)
    for marker in _MARKERS:
        at = plain.find(marker)
        if at < 0:
            continue
        rest = plain[at + len(marker) + 1 :]
        return float(any(rest.startswith(label) for label in (text, letter)))
    for word in plain.split():
        if word in _LETTERS:
            return float(word in (text, letter))
    return 0.0


def acc(generation: str, text: str, letter: str) -> float:
    """The newest official scorer (51d9b37b): the last letter of the first line that has one, else the old
    rules."""
    lines = (_LETTER.findall(line) for line in generation.strip().split("\n"))
    found = next(filter(None, lines), None)
    if found and found[-1] in (text, letter):
        return 1.0
    return acc_v1(generation, text, letter)


def _squeeze(pred: str) -> str:
    text = pred.translate(_NOISE)
    while "  " in text:
        text = text.replace("  ", " ")
    return text


# ---- longbench -----------------------------------------------------------------------------------
# LongBench-v2: the official letter extraction (pred.py extract_answer) and accuracy.

_FORMS = (re.compile(r"The correct answer is \(([A-D])\)"), re.compile(r"The correct answer is ([A-D])"))


def letter(generation: str) -> str | None:
    """The letter by the official rule: `*` removed, case-sensitive, first match; None counts as wrong."""
    text = generation.replace("*", "")
    for form in _FORMS:
        found = form.search(text)
        if found:
            return found[1]
    return None


def score(generation: str, gold: str) -> dict[str, float]:
    """acc and parsed of one item; thoughts before the answer are not searched."""
    got = letter(strip_thoughts(generation))
    return {"acc": float(got == gold), "parsed": float(got is not None)}
