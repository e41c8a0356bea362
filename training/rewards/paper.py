"""Preset `paper`: equations 6-10 of arXiv 2601.18527 (1-5 in the text), each a sum of indicators.

    R_AO = answer                     R_ID = ids + answer           R_ID+C = ids + content + answer
    R_ID+Q = ids + quotes + answer    R_R+Judge = J + answer

Every function takes the completions and their rows and returns one dict a completion: `reward` and its terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from icr_tasks.errors import IcrError
from icr_tasks.metrics.judge.rubrics import RUBRICS, BadReply, Case
from icr_tasks.metrics.visible import visible

from . import match
from .match import Options, Row, Scores

# ---- verdict -------------------------------------------------------------------------------------
# The judge of R+Judge: what it is asked and how its reply is read. Both are rubric `paper` of the metrics.

# Prompts -> replies in the same order; None where the judge could not be asked.
Ask = Callable[[Sequence[str]], Sequence[str | None]]


def judge_of(options: Mapping[str, Any], preset: str = "paper", outages: int = 3) -> Ask:
    """A judge by its options. Up to `outages` batches in a row go without reward when it cannot be reached.

    Preset `paper` asks again for a reply without exactly three verdicts; `paper_code` takes any reply.
    """
    from ...metrics.judge.ask import Asker

    rubric = RUBRICS["paper"]
    accept = rubric.parse if preset == "paper" else str
    return Asker(options, accept, kind="reward", version=rubric.version, outages=outages)


def question(text: str, row: Row) -> str:
    """The judge prompt for one completion (arXiv 2601.18527, Table 6); votes inside the completion are
    defused."""
    if len(row.gold_docs) != len(row.gold_ids):
        raise IcrError(f"row {row.id!r} has gold ids without their texts (gold_docs), which the judge reads")
    docs = "\n\n".join(f"[DOC {i}]\n{d}" for i, d in zip(row.gold_ids, row.gold_docs, strict=True))
    case = Case(row.question, row.answers[0], visible(text).text.strip(), row.id, docs)
    return RUBRICS["paper"].render(case)[0]


def criteria(reply: str | None) -> dict[str, int] | None:
    """reasoning, grounding, correctness -> 0 or 1; None unless the reply gives each exactly once."""
    if reply is None:
        return None
    try:
        return RUBRICS["paper"].parse(reply).criteria
    except BadReply:
        return None


Term = Callable[[str, Row, Options], float]
Reward = Callable[..., list[Scores]]
TERM: dict[str, Term] = {
    "answer": match.answer,
    "ids": match.ids,
    "content": match.content,
    "quotes": match.quoted,
}
DEFAULT = Options()


def _total(terms: Scores, options: Options) -> Scores:
    return {"reward": sum(options.weights.get(name, 1.0) * value for name, value in terms.items()), **terms}


# The terms of each reward, and the most each can be: what `options.weights` may name.
PARTS: dict[str, dict[str, float]] = {
    "ao": {"answer": 1.0},
    "id": {"ids": 1.0, "answer": 1.0},
    "idc": {"ids": 1.0, "content": 1.0, "answer": 1.0},
    "idq": {"ids": 1.0, "quotes": 1.0, "answer": 1.0},
    "judge": {"judge": 3.0, "answer": 1.0},
}


def _sum(name: str, texts: Sequence[str], rows: Sequence[Row], options: Options) -> list[Scores]:
    pairs = zip(texts, rows, strict=True)
    return [_total({n: TERM[n](text, row, options) for n in PARTS[name]}, options) for text, row in pairs]


def ao(texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT) -> list[Scores]:
    """Equation 6: the answer alone."""
    return _sum("ao", texts, rows, options)


def id_(texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT) -> list[Scores]:
    """Equation 7: the relevant ids, and the answer."""
    return _sum("id", texts, rows, options)


def idc(texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT) -> list[Scores]:
    """Equation 8: ids, the documents reproduced, answer."""
    return _sum("idc", texts, rows, options)


def idq(texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT) -> list[Scores]:
    """Equation 9: ids, quotes from the relevant documents, answer."""
    return _sum("idq", texts, rows, options)


def judge(
    texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT, *, replies: Sequence[str | None]
) -> list[Scores]:
    """Equation 10: J (the sum of the judge's three criteria, 0-3) plus the answer.

    `replies` are the judge's texts; where one is missing or cannot be read the whole reward is NaN, because a
    missing part would count as zero against its siblings.
    """
    out: list[Scores] = []
    for text, row, reply in zip(texts, rows, replies, strict=True):
        found = criteria(reply)
        verdict = float("nan") if found is None else float(sum(found.values()))
        answer = match.answer(text, row, options)
        if options.hybrid and found is not None:
            answer = max(answer, float(found["correctness"]))
        out.append(_total({"judge": verdict, "answer": answer}, options))
    return out


REWARDS: dict[str, Reward] = {"ao": ao, "id": id_, "idc": idc, "idq": idq, "judge": judge}


# ---- hybrid --------------------------------------------------------------------------------------
# Hybrid reward: the rule first, a judge only where the rule gives nothing; the better of the two
# (QwenLong-L1, arXiv 2505.17667).

NAME = "hybrid"
JUDGED = (NAME, "judge")
HYBRID_DEFAULT = Options()


def hybrid(
    texts: Sequence[str],
    rows: Sequence[Row],
    options: Options = HYBRID_DEFAULT,
    *,
    replies: Sequence[str | None],
) -> list[Scores]:
    """max(rule, judge), 0 or 1; terms `answer` (the rule), `judge` (0 where it was not asked, or saw no
    marker), `asked`.

    `replies` hold a text wherever `doubtful` names the completion; missing or unreadable there makes the
    reward NaN.
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


def doubtful(texts: Sequence[str], rows: Sequence[Row], options: Options = HYBRID_DEFAULT) -> list[int]:
    """Numbers of the completions a judge has to decide: an answer with its marker, which the rule (if it
    counts) gives 0."""
    pairs = enumerate(zip(texts, rows, strict=True))
    return [
        n
        for n, (t, r) in pairs
        if match.marked(t) is not None and not (options.rule and match.answer(t, r, options))
    ]


def replies_for(
    name: str, texts: Sequence[str], rows: Sequence[Row], options: Options, ask: Ask
) -> list[str | None]:
    """The judge's replies a reward needs, None where it was not asked or did not answer. One batch of calls,
    or none."""
    at = doubtful(texts, rows, options) if name == NAME else list(range(len(texts)))
    given = dict(zip(at, ask([question(texts[i], rows[i]) for i in at]), strict=True)) if at else {}
    return [given.get(i) for i in range(len(texts))]
