"""Generation -> metrics of one item, by the scorer named in the task's data sheet. A new scorer is one
entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import IcrError, unknown
from ..registry import METRICS
from .given import Given, given

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


def qa_judged(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """QA whose headline is a judge's: SubEM and F1 stand beside it."""
    return {k: v for k, v in qa(text, doc, None).items() if k in BUNDLES["qa_judged"]}


def infbench_mc(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """InfiniteBench En.MC: the option that the answer names, and both official scorers."""
    from . import choice

    gold, letter = doc["answers"][0], "ABCD"[list(doc["options"]).index(doc["answers"][0])]
    return {
        **picked(text, doc["options"], letter),
        "acc": choice.acc(text, gold, letter),
        "acc_v1": choice.acc_v1(text, gold, letter),
    }


def picked(text: str, options: Sequence[str], gold: str) -> Scores:
    """acc_choice and parsed: our own reader on a question's options; no readable answer counts as wrong."""
    from .option_reader import pick

    letter = pick(text, options)
    return {"acc_choice": float(letter == gold), "parsed": float(letter is not None)}


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


def lbpro_sum(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """LongBench Pro's summaries without an embedder: the ROUGEs of InfiniteBench's, of what follows the last mark (of
    everything without one)."""
    from .answer_lines import region

    found = region(text)
    return infbench_sum(text if found is None else found, doc, gold_ids)


def longbench(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """LongBench-v2: the option that the answer names, and the official extraction with its share of
    letters."""
    from . import choice

    official = choice.score(text, doc["answers"][0])
    return {
        **picked(text, doc.get("options") or [f"\0{letter}" for letter in "ABCD"], doc["answers"][0]),
        "acc": official["acc"],
        "parsed_official": official["parsed"],
    }


def loong(text: str, doc: Mapping[str, Any], gold_ids: Sequence[int] | None) -> Scores:
    """Loong is scored by the judge; without one only the fact that an answer came is recorded."""
    return {"answered": float(bool(text.strip()))}


SCORERS: dict[str, Scorer] = {
    "qa": qa,
    "helmet_official": helmet_official,
    "qa_judged": qa_judged,
    "infbench_mc": infbench_mc,
    "infbench_qa": infbench_qa,
    "infbench_sum": infbench_sum,
    "lbpro_sum": lbpro_sum,
    "longbench": longbench,
    "loong": loong,
}


COST = ("out_tokens", "thought_tokens", "unfinished", "truncated")
_EQUIV = ("judge_equiv", "judge_equiv_failed")  # where a judge is configured
_ROUGE = ("rougeLsum", "rougeL", "rougeL_stem", "rougeLsum_stem")
_CHOICE = (
    "acc_choice",
    "parsed",
    "acc_xfinder",
    "acc_xfinder_cmp",
    "no_valid_answer_rate",
    "extract_error_rate",
)
# What each scorer reports, the default headline first. A new bundle is one entry here and one in SCORERS.
BUNDLES: dict[str, tuple[str, ...]] = {
    "qa": (
        "subem",
        "subem_norm",
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
        *_EQUIV,
        *COST,
    ),
    "qa_judged": (*_EQUIV, "subem", "subem_norm", "subem_raw", "f1", "parsed", *COST),
    "infbench_mc": (*_CHOICE, "acc", "acc_v1", *COST),
    "infbench_qa": ("subem", "subem_norm", "subem_raw", "f1", "parsed", *_EQUIV, *COST),
    "infbench_sum": (*_ROUGE, *COST),
    "lbpro_sum": (
        *_ROUGE,
        "summary",
        "summary_other",
        "summary_cosine",
        "summary_rouge",
        *COST,
    ),  # by an embedder
    "longbench": (*_CHOICE, "acc", "parsed_official", *COST),
    "loong": (
        "judge",
        "judge_zero",
        "judge_official",
        "perfect",
        "judge_parsed",
        "judge_failed",
        "judge_reasoning",
        "judge_grounding",
        "judge_correctness",
        "answered",
        *COST,
    ),
}
LOWER_IS_BETTER = frozenset(
    {*COST, "judge_failed", "judge_equiv_failed", "no_valid_answer_rate", "extract_error_rate"}
)


# Rows that read an answer out of the text. The others (official, raw, ROUGE) score a cut text as it stands.
READ = frozenset({"subem", "subem_norm", "subem_word", "em", "acc_choice"})


def asks_marker(user: str) -> bool:
    """Whether a prompt's user text asks for a formal marker: "The answer is ..." or "Answer: <your
    answer>"."""
    return "answer is" in user or "Answer: <" in user


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
    if wanted <= set(COST):
        return None
    for name, names in BUNDLES.items():
        if wanted <= set(names):
            return name
    raise IcrError(
        f"no scorer reports all of {', '.join(sorted(wanted))}; use one bundle, e.g. icr.metrics.QA"
    )


def score(
    scorer: str | None,
    answer: Given | str,
    doc: Mapping[str, Any],
    gold_ids: Sequence[int] | None = None,
    *,
    marker: bool = False,
    more: Sequence[str] = (),
    item: Any = None,
) -> Scores:
    """All metrics of one answer: those of the scorer, and the registered metrics `more`, which get the
    extracted answer and the item. `marker`: the prompt asked for "The answer is ...". Raises IcrError naming
    a metric that fails.

    A generation that was cut before anything readable came is wrong in the rows that read an answer: after an
    open thought, as an empty text, or under a marker prompt without its marker.
    """
    seen = given(answer) if isinstance(answer, str) else answer
    text = seen.text
    found = {} if scorer is None else SCORERS[scorer](text, doc, gold_ids)
    if seen.unfinished and (not text.strip() or (marker and found.get("parsed", 1.0) == 0.0)):
        read = READ | {"f1"} if scorer == "qa" else READ
        found = {name: 0.0 if name in read else value for name, value in found.items()}
    for name in more:
        if name in METRICS:
            found[name] = _registered(name, text, item)
    return {name: float(value) for name, value in found.items()}


def _registered(name: str, text: str, item: Any) -> float:
    from .extract import extract_answer

    entry = METRICS.get(name)
    try:
        whole = entry.facts.get("reads") == "text"
        value = float(entry.target(text if whole else extract_answer(text).text, item))
    except Exception as error:  # somebody else's function: its error is named with metric and item
        raise IcrError(
            f"metric {name!r} ({entry.origin}) failed on item {getattr(item, 'id', '?')}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not math.isfinite(value):
        raise IcrError(f"metric {name!r} ({entry.origin}) gave {value} on item {getattr(item, 'id', '?')}")
    return value


def metric(
    name: str, *, higher_is_better: bool = True, reads: str = "answer"
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Register `function(answer: str, item: Item) -> float` (0 to 1) as a metric that benchmarks may name.

    `reads`: "answer" (what the extractor takes for the answer) or "text" (the whole visible text).
    """
    if reads not in ("answer", "text"):
        raise unknown("reads", reads, ("answer", "text"))
    if known(name):
        raise IcrError(f"metric {name!r} is one of icr-tasks itself; choose another name")
    return METRICS.register(name, higher_is_better=higher_is_better, reads=reads)
