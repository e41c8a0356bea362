"""Preset `paper`: equations 6-10 of arXiv 2601.18527 (1-5 in the text), each a sum of indicators.

    R_AO = answer                     R_ID = ids + answer           R_ID+C = ids + content + answer
    R_ID+Q = ids + quotes + answer    R_R+Judge = J + answer

Every function takes the completions and their rows and returns one dict a completion: `reward` and its terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import match
from .row import Options, Row, Scores
from .verdict import criteria

Term = Callable[[str, Row, Options], float]
Reward = Callable[..., list[Scores]]
TERM: dict[str, Term] = {"answer": match.answer, "ids": match.ids, "content": match.content, "quotes": match.quoted}
DEFAULT = Options()


def _total(terms: Scores, options: Options) -> Scores:
    return {"reward": sum(options.weights.get(name, 1.0) * value for name, value in terms.items()), **terms}


def _sum(texts: Sequence[str], rows: Sequence[Row], options: Options, *parts: str) -> list[Scores]:
    pairs = zip(texts, rows, strict=True)
    return [_total({name: TERM[name](text, row, options) for name in parts}, options) for text, row in pairs]


def ao(texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT) -> list[Scores]:
    """Equation 6: the answer alone."""
    return _sum(texts, rows, options, "answer")


def id_(texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT) -> list[Scores]:
    """Equation 7: the relevant ids, and the answer."""
    return _sum(texts, rows, options, "ids", "answer")


def idc(texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT) -> list[Scores]:
    """Equation 8: ids, the documents reproduced, answer."""
    return _sum(texts, rows, options, "ids", "content", "answer")


def idq(texts: Sequence[str], rows: Sequence[Row], options: Options = DEFAULT) -> list[Scores]:
    """Equation 9: ids, quotes from the relevant documents, answer."""
    return _sum(texts, rows, options, "ids", "quotes", "answer")


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
