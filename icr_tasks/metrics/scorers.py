"""Generation -> metrics of one item, by the scorer named in the task's data sheet. A new scorer is one
entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Scores = dict[str, float]
Scorer = Callable[[str, Mapping[str, Any], Sequence[int] | None], Scores]


def qa(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """HELMET-RAG and synth: SubEM on the extracted answer, its paper-compatible variant, EM, F1,
    citations."""
    from .answers import score

    return score(text, doc["answers"], gold_ids=gold_ids)


def helmet_official(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """HELMET's own scores as subem/em/f1 (max over raw and parsed text), with ours beside them."""
    from .answers import helmet_official as official

    ours = qa("Answer:" + text, doc, None)
    return {
        **ours,
        **{f"{k}_official": v for k, v in official(text, doc["answers"], completion=True).items()},
    }


def infbench_mc(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """InfiniteBench En.MC under both official scorers."""
    from . import choice

    gold, letter = doc["answers"][0], "ABCD"[list(doc["options"]).index(doc["answers"][0])]
    return {"acc": choice.acc(text, gold, letter), "acc_v1": choice.acc_v1(text, gold, letter)}


def infbench_qa(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """InfiniteBench En.QA: official token F1, SubEM on the extracted answer and on the whole text."""
    from . import answers as _qa

    ours = _qa.score(text, doc["answers"])
    return {
        "f1": _qa.infbench_f1(text, doc["answers"]),
        **{k: ours[k] for k in ("subem", "subem_raw", "parsed")},
    }


def infbench_sum(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """InfiniteBench En.Sum: four ROUGEs, each named for what it is."""
    from . import rouge

    return rouge.score(text, doc["answers"])


def longbench(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """LongBench-v2: official extraction, accuracy and whether a letter was found."""
    from . import choice

    return choice.score(text, doc["answers"][0])


def loong(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """Loong is scored by the judge; without one only the fact that an answer came is recorded."""
    return {"answered": float(bool(text.strip()))}


SCORERS: dict[str, Scorer] = {
    "qa": qa,
    "helmet_official": helmet_official,
    "infbench_mc": infbench_mc,
    "infbench_qa": infbench_qa,
    "infbench_sum": infbench_sum,
    "longbench": longbench,
    "loong": loong,
}
