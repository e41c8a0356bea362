"""Generation -> metrics of one item, by the scorer named in the task's data sheet. A new scorer is one
entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import IcrError
from ..registry import METRICS

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


_COST = ("out_tokens", "truncated")
_CHOICE = ("acc_xfinder", "acc_xfinder_cmp", "no_valid_answer_rate", "extract_error_rate")
# What each scorer reports, the default headline first. A new bundle is one entry here and one in SCORERS.
BUNDLES: dict[str, tuple[str, ...]] = {
    "qa": (
        "subem",
        "subem_raw",
        "subem_word",
        "em",
        "f1",
        "parsed",
        "cite_p",
        "cite_r",
        "cite_f1",
        "subem_official",
        "em_official",
        "f1_official",
        *_COST,
    ),
    "infbench_mc": ("acc", "acc_v1", *_CHOICE, *_COST),
    "infbench_qa": ("f1", "subem", "subem_raw", "parsed", *_COST),
    "infbench_sum": ("rougeLsum", "rougeL", "rougeL_stem", "rougeLsum_stem", *_COST),
    "longbench": ("acc", "parsed", *_CHOICE, *_COST),
    "loong": (
        "judge",
        "judge_zero",
        "perfect",
        "judge_parsed",
        "judge_failed",
        "judge_reasoning",
        "judge_grounding",
        "judge_correctness",
        "answered",
        *_COST,
    ),
}
LOWER_IS_BETTER = frozenset(
    {"out_tokens", "truncated", "judge_failed", "no_valid_answer_rate", "extract_error_rate"}
)


def known(metric: str) -> bool:
    """True for a metric that one of our scorers reports."""
    return any(metric in names for names in BUNDLES.values())


def higher_is_better(metric: str) -> bool:
    """Direction of a metric; a registered one says it itself."""
    if known(metric) or metric not in METRICS:
        return metric not in LOWER_IS_BETTER
    return bool(METRICS.get(metric).facts["higher_is_better"])


def of(metrics: Sequence[str]) -> str | None:
    """The scorer that reports these metrics; those registered one by one need none. None: no scorer at all.

    Raises IcrError when no single scorer reports all the others.
    """
    wanted = {m for m in metrics if known(m)}
    if wanted <= set(_COST):
        return None
    for name, names in BUNDLES.items():
        if wanted <= set(names):
            return name
    raise IcrError(
        f"no scorer reports all of {', '.join(sorted(wanted))}; use one bundle, e.g. icr.metrics.QA"
    )


def score(
    scorer: str | None,
    text: str,
    doc: Mapping[str, Any],
    gold_ids: Sequence[int] | None = None,
    *,
    more: Sequence[str] = (),
    item: Any = None,
) -> Scores:
    """All metrics of one answer: those of the scorer, and the registered metrics `more`, which get the extracted
    answer and the item. Raises IcrError naming a metric that fails."""
    found = {} if scorer is None else SCORERS[scorer](text, doc, gold_ids)
    for name in more:
        if name in METRICS:
            found[name] = _registered(name, text, item)
    return {name: float(value) for name, value in found.items()}


def _registered(name: str, text: str, item: Any) -> float:
    from .extract import extract_answer

    entry = METRICS.get(name)
    try:
        value = float(entry.target(extract_answer(text).text, item))
    except Exception as error:  # somebody else's function: its error is named with metric and item
        raise IcrError(
            f"metric {name!r} ({entry.origin}) failed on item {getattr(item, 'id', '?')}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not math.isfinite(value):
        raise IcrError(f"metric {name!r} ({entry.origin}) gave {value} on item {getattr(item, 'id', '?')}")
    return value


def metric(
    name: str, *, higher_is_better: bool = True
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Register `function(answer: str, item: Item) -> float` (0 to 1) as a metric that benchmarks may name."""
    if known(name):
        raise IcrError(f"metric {name!r} is one of icr-tasks itself; choose another name")
    return METRICS.register(name, higher_is_better=higher_is_better)
