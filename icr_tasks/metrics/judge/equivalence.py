"""Rubric `equiv`: does an answer say the same as a gold answer? For any QA task; three verdicts, as graders
of short facts use: correct, incorrect, not attempted.

Our own wording. The judged answer is quoted and defused like that of the other rubrics, and the verdict is
read from one line that says nothing else: an answer cannot pose as it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .rubrics import REMINDER, RUBRICS, BadReply, Case, Reading, Rubric, Verdict, defuse, visible

_PROMPT = """You compare an answer with reference answers. Use nothing but what stands here; do not answer the question yourself.

[Question]: {question}
[Reference Answers] (any one of them is right):
{gold}
[Answer to compare]:
{response}
[End of the answer]

{reminder}Choose one verdict:
- CORRECT: the answer states what one reference states, in any wording, spelling, order, unit or date format; more detail is
  allowed as long as it does not contradict the reference.
- INCORRECT: the answer states something else, leaves out a part that the question asks for, contradicts the reference, or
  offers several different answers of which the reference is only one.
- NOT_ATTEMPTED: the answer states no answer: it refuses, says that it does not know, or only repeats the question.

First give one sentence of reason. Then end with one line in exactly this form, with your verdict in the brackets:
Verdict: [[CORRECT]]"""
VERDICTS = {"CORRECT": 1.0, "INCORRECT": 0.0, "NOT_ATTEMPTED": 0.0}
_ANY = re.compile(r"\[\[[ \t]{0,8}([A-Za-z_ ]{3,20}?)[ \t]{0,8}\]\]")
_LINE = re.compile(r"[\s*_#>`]*(?:(?:final )?verdict[\s*_]*:?[\s*_]*)?\[\[([^\[\]]*)\]\][\s*_`.]*", re.I)


def gold_text(golds: Sequence[str]) -> str:
    """Reference answers as the prompt shows them, one a line."""
    return "\n".join(f"- {' '.join(gold.split())}" for gold in golds)


def render(case: Case) -> tuple[str, bool]:
    """(prompt, flagged) of one case; `case.gold` is `gold_text(...)`."""
    response, flagged = defuse(case.response)
    shown = response or "(empty)"
    question = f"{case.question}\n[Rule for this question]: {case.rule}" if case.rule else case.question
    fields = {"question": question, "gold": case.gold, "response": shown}
    return _PROMPT.format(**fields, reminder=REMINDER if flagged else ""), flagged


def parse(reply: str) -> Reading:
    """The one verdict of a reply, on a line of its own that nothing bracketed follows. Raises BadReply
    otherwise."""
    text = visible(reply)
    if not _ANY.search(text):
        raise BadReply("no [[verdict]]")
    lines = text.strip().splitlines()
    said = [
        (n, found[1].strip().upper().replace(" ", "_"))
        for n, line in enumerate(lines)
        if (found := _LINE.fullmatch(line))
    ]
    if len(said) != 1:
        raise BadReply(f"{len(said)} verdict lines")
    at, word = said[0]
    if any(_ANY.search(line) for line in lines[at + 1 :]):
        raise BadReply("another bracketed word follows the verdict")
    if word not in VERDICTS:
        raise BadReply(f"verdict {word[:20]!r} is none of {', '.join(VERDICTS)}")
    value = VERDICTS[word]
    return Reading(value, value, {"attempted": int(word != "NOT_ATTEMPTED")})


def equiv_metrics(verdict: Verdict) -> dict[str, float]:
    """judge_equiv (1 for CORRECT, 0 for the other two) where there is a verdict, and judge_equiv_failed."""
    if not verdict.ok or verdict.score is None:
        return {"judge_equiv_failed": 1.0}
    return {"judge_equiv": verdict.score, "judge_equiv_failed": 0.0}


RUBRICS["equiv"] = Rubric("equiv-1", render, parse)
