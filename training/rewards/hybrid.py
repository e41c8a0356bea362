"""Hybrid reward: the rule first, a judge only where the rule gives nothing; the better of the two (QwenLong-L1, arXiv 2505.17667).

A rule misses right answers in other words ("NYC"); a judge costs a call. An answer without its marker is not asked about:
else training would learn to drop the format the metrics read. Option `rule: false` is the comparison arm: the judge alone,
about every answer with its marker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from icr_tasks.metrics.extract import extract_answer

from . import match
from .row import Options, Row, Scores
from .verdict import Ask, criteria, question

NAME = "hybrid"
JUDGED = (NAME, "judge")
DEFAULT = Options()


def hybrid(
    texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT, *, replies: Sequence[str | None]
) -> list[Scores]:
    """max(rule, judge), 0 or 1; terms `answer` (the rule), `judge` (0 where it was not asked, or saw no marker), `asked`.

    `replies` hold a text wherever `doubtful` names the completion; missing or unreadable there makes the reward NaN.
    """
    asked, out = set(doubtful(texts, rows, options)), []
    for number, (text, row, reply) in enumerate(zip(texts, rows, replies, strict=True)):
        rule, verdict = match.answer(text, row, options), 0.0
        if number in asked:
            found = criteria(reply)
            verdict = float("nan") if found is None else float(found["correctness"])
        best = verdict if math.isnan(verdict) or not options.rule else max(rule, verdict)
        out.append({"reward": best, "answer": rule, "judge": verdict, "asked": float(number in asked)})
    return out


def doubtful(texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT) -> list[int]:
    """Numbers of the completions a judge has to decide: an answer with its marker, which the rule (if it counts) gives 0."""
    pairs = enumerate(zip(texts, rows, strict=True))
    return [n for n, (t, r) in pairs if extract_answer(t).found and not (options.rule and match.answer(t, r, options))]


def replies_for(name: str, texts: Sequence[str], rows: Sequence[Row], options: Options, ask: Ask) -> list[str | None]:
    """The judge's replies a reward needs, None where it was not asked or did not answer. One batch of calls, or none."""
    at = doubtful(texts, rows, options) if name == NAME else list(range(len(texts)))
    given = dict(zip(at, ask([question(texts[i], rows[i]) for i in at]), strict=True)) if at else {}
    return [given.get(i) for i in range(len(texts))]
