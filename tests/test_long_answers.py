"""Readers of an answer take time in proportion to its length, whatever is repeated in it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from icr_tasks.metrics.answers import score
from icr_tasks.metrics.citations import cited_ids, contents, quotes
from icr_tasks.metrics.extract import extract_answer
from icr_tasks.metrics.option_reader import pick
from icr_tasks.metrics.visible import visible

UNITS = (
    "final ",
    "\nanswer",
    "Answer: ",
    "<think>",
    "</think>",
    "<think>[/THINK]",
    "<answer>",
    "not x, ",
    "cannot be determined ",
    "one hundred ",
    "May 4 ",
    "\\boxed{",
    "option A ",
    "[DOC 1] ",
    "a.b.",
    "**\n",
    "\n\n",
    "\n- ",
    "[DOC ",
    "relevant documents ",
)
READERS: dict[str, Callable[[str], object]] = {
    "visible": visible,
    "extract_answer": extract_answer,
    "pick": lambda text: pick(text, ("A walk on the Moon", "Mars", "Rome", "Dr. Ada")),
    "cited_ids": cited_ids,
    "quotes": quotes,
    "contents": contents,
    "score": lambda text: score(text, ("4 July 1776", "John Smith")),
}


def _seconds(read: Callable[[str], object], text: str) -> float:
    since = time.process_time()
    read(text)
    return time.process_time() - since


@pytest.mark.parametrize("unit", UNITS)
def test_four_times_the_text_takes_about_four_times_as_long(unit: str) -> None:
    for name, read in READERS.items():
        small, large = (unit * (n // len(unit)) for n in (8_000, 32_000))
        read(small)  # what is loaded at the first call is not the answer's
        slow = min(_seconds(read, large) for _ in range(3))
        if slow > 0.2:  # a square law shows in seconds at this length
            assert slow < 8 * min(_seconds(read, small) for _ in range(3)), name
        assert slow < 2, name


def test_the_last_of_many_markers_is_the_answer() -> None:
    text = "Answer: London\n" * 5_000 + "Answer: Paris\n" + "Answer:\n" * 100
    assert extract_answer(text).text == "Paris"
