"""The final answer in a generation.

Formats asked for by the prompts ("Answer: X", "The answer is: X", the correct answer is (X)) and what models
make of them: bold, quotes, boxes, the answer on the next line, thoughts before it, words after it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .visible import visible


class Extracted(NamedTuple):
    """`text` is the answer; `found` says whether a formal marker was seen (otherwise it is the first
    line)."""

    text: str
    found: bool


_CONTROL = re.compile(r"<\|[a-z_]+\|>|</s>|<s>|<\|?(?:end|eot)[^>]*>", re.I)
# A model that goes on with the next question (few-shot habit) has answered before it.
_NEXT_TURN = re.compile(r"(?<=\S)\s*\n\s*(?:Question|Human|User|Q)\s*\d*\s*:.*\Z", re.S | re.I)
_EMPHASIS = r"[*_`]{0,3}"
_LEAD = r"(?:(?:my|the|so the|therefore,? the)\s+)?(?:(?:final|correct|short|concise|best)\s+)*"
# "Answer: X" anywhere in a line; "answer is X" also without a colon. A bare mention ("to answer the
# question") is no marker.
_MARKER = re.compile(
    rf"{_EMPHASIS}\b{_LEAD}answer{_EMPHASIS}\s*(?:(?:to\s+(?:the|this|your)\s+question\s+)?{_EMPHASIS}(?:is|was|are|would be)\b{_EMPHASIS}\s*:?|:){_EMPHASIS}",
    re.I,
)
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_PLACEHOLDER = re.compile(
    r"^<?\s*(?:your|insert|the)?\s*(?:final\s+|short\s+)?answer(?:\s+here)?\s*>?\.?$", re.I
)
# Words whose final dot does not end a sentence, and single initials.
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|St|Mr|Mrs|Ms|Dr|Jr|Sr|Prof|Gen|Col|Lt|Sgt|Capt|Rev|Hon|Gov|Sen|Rep|Mt|Ft|No|Nos|vs|vol|pp|ed|eds|Inc|Corp"
    r"|Co|Ltd|LLC|Bros|Ave|Blvd|Rd|etc|approx|ca|cf|al|Op|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)|[A-Z](?:\.[A-Za-z])+|[ap]\.m)\.$"
)
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]*_]*(?=\s+[\"'“‘(\[]*[A-Z])")
_NEXT_FIELD = re.compile(
    r"\n\s*(?:\*\*|#|\[DOC|Relevant doc|Quote \d|Explanation|Reason|Note|Question|Source|Document|Justification|Human:|User:)",
    re.I,
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`", "«": "»"}


def strip_thoughts(text: str) -> str:
    """Text without thoughts and control tokens. A thought that never closed swallows the rest: nothing was
    answered."""
    return _CONTROL.sub(" ", visible(text).text)


def _own_turn(text: str) -> str:
    """The text before the model starts to play the next turn itself."""
    return _NEXT_TURN.sub("", text)


def extract_answer(text: str) -> Extracted:
    """The answer after the last formal marker, else the last `\\boxed{}`, else the first non-empty line."""
    text = _own_turn(strip_thoughts(text))
    for match in reversed(list(_MARKER.finditer(text))):
        answer = _clean(_span(text[match.end() :]))
        if answer and not _PLACEHOLDER.match(answer):
            return Extracted(answer, True)
    boxes = [b for b in _BOXED.findall(text) if not b.strip().lower().startswith("criterion")]
    if boxes and _clean(boxes[-1]):
        return Extracted(_clean(boxes[-1]), True)
    lines = [line for line in text.splitlines() if line.strip(" *_#`")]
    return Extracted(_clean(_span(lines[0])) if lines else "", False)


def _span(rest: str) -> str:
    """From the marker to the end of the answer: its line (the next one when this is empty), its first
    sentence."""
    rest = rest.lstrip(" \t:")
    if not rest.split("\n", 1)[0].strip(" *_`"):
        rest = rest.lstrip("\n *_`")
    cut = _NEXT_FIELD.search(rest)
    line = (rest[: cut.start()] if cut else rest).split("\n", 1)[0]
    box = _BOXED.search(line)
    if box:
        return box[1]
    for end in _SENTENCE_END.finditer(line):
        head = line[: end.start() + 1]
        following = line[end.end() :].split()
        # "John. F. Kennedy", "St. Louis": a name goes on. A sentence follows when it is longer than a name.
        if not _ABBREVIATION.search(head) and (len(following) > 2 or end[0] != "."):
            return line[: end.end()]
    return line


def _clean(answer: str) -> str:
    """Without markup, wrapping quotes or brackets, and the final sentence period; inner dots stay."""
    answer = re.sub(r"\*\*|__|`", "", answer).strip().strip("*_ ")
    for _ in range(4):
        before = answer
        answer = answer.strip().rstrip(",;:").strip()
        if answer.endswith(".") and not _ends_in_abbreviation(answer):
            answer = answer[:-1].rstrip()
        if len(answer) > 1 and _QUOTES.get(answer[0]) == answer[-1]:
            answer = answer[1:-1]
        if (
            len(answer) > 1
            and (answer[0], answer[-1]) in (("(", ")"), ("[", "]"), ("<", ">"))
            and answer[1:-1].isascii()
        ):
            inner = answer[1:-1]
            answer = inner if not any(c in inner for c in "()[]<>") else answer
        if answer == before:
            break
    return answer


def _ends_in_abbreviation(answer: str) -> bool:
    """True when the last dot belongs to the answer: "Apple Inc.", "Washington D.C.", "J. F. K."."""
    return bool(_ABBREVIATION.search(answer)) and (
        len(answer) < 3 or not answer[:-1].replace(" ", "").isdigit()
    )
