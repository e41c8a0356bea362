"""The judge of R+Judge: what it is asked and how its reply is read. Both are rubric `paper` of the metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from icr_tasks.metrics.extract import strip_thoughts
from icr_tasks.metrics.judge.records import Case
from icr_tasks.metrics.judge.rubrics import RUBRICS, BadReply

from .row import Row

# Prompts -> replies in the same order; None where the judge could not be asked.
Ask = Callable[[Sequence[str]], Sequence[str | None]]


def judge_of(options: Mapping[str, Any], preset: str = "paper", outages: int = 3) -> Ask:
    """A judge by its options. Up to `outages` batches in a row go without reward when it cannot be reached.

    Preset `paper` asks again for a reply without exactly three verdicts; `paper_code` takes any reply.
    """
    from ..ask import Asker

    rubric = RUBRICS["paper"]
    accept = rubric.parse if preset == "paper" else str
    return Asker(options, accept, kind="reward", version=rubric.version, outages=outages)


def question(text: str, row: Row) -> str:
    """The judge prompt for one completion (arXiv 2601.18527, Table 6); votes inside the completion are defused."""
    docs = "\n\n".join(f"[DOC {i}]\n{d}" for i, d in zip(row.gold_ids, row.gold_docs, strict=True))
    case = Case(row.question, row.answers[0], strip_thoughts(text).strip(), row.id, docs)
    return RUBRICS["paper"].render(case)[0]


def criteria(reply: str | None) -> dict[str, int] | None:
    """reasoning, grounding, correctness -> 0 or 1; None unless the reply gives each exactly once."""
    if reply is None:
        return None
    try:
        return RUBRICS["paper"].parse(reply).criteria
    except BadReply:
        return None
