"""How well an automatic correctness call agrees with human labels: accuracy, Cohen's kappa, intervals by
question."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .answers import em, f1, normalize, subem, subem_official, subem_word
from .extract import extract_answer
from .normalised import subem_norm

HEADLINE = "subem"  # of the QA tasks; docs/metrics.md says why


@dataclass(frozen=True, slots=True)
class Labelled:
    """An answer to a question, whether a human called it correct, and the systems that gave it."""

    question: str
    golds: tuple[str, ...]
    answer: str
    human: bool
    systems: tuple[str, ...] = ()


_extracted = lru_cache(maxsize=256)(extract_answer)  # six metrics read each answer


def calls(threshold: float = 0.5) -> dict[str, Callable[[Labelled], bool]]:
    """Each metric as a yes/no call on one answer; F1 says yes from `threshold` on."""

    def short(row: Labelled) -> str:
        return _extracted(row.answer).text

    def reads(row: Labelled) -> str:
        return _extracted(row.answer).reads

    return {
        "subem": lambda r: subem(reads(r), r.golds) == 1.0,
        "subem_norm": lambda r: subem_norm(reads(r), r.golds) == 1.0,
        "subem_raw": lambda r: (
            max(subem_official(r.answer, r.golds), subem_official(short(r), r.golds)) == 1.0
        ),
        "subem_word": lambda r: subem_word(reads(r), r.golds) == 1.0,
        "em": lambda r: em(short(r), r.golds) == 1.0,
        "f1": lambda r: f1(short(r), r.golds) >= threshold,
    }


def kappa(call: np.ndarray, human: np.ndarray) -> float:
    """Cohen's kappa of two yes/no vectors; NaN where chance alone explains all (both constant and equal)."""
    n = len(call)
    agree = float(np.mean(call == human))
    chance = float(call.mean() * human.mean() + (1 - call.mean()) * (1 - human.mean())) if n else 1.0
    return float("nan") if chance == 1.0 else (agree - chance) / (1 - chance)


def measure(
    rows: Sequence[Labelled], *, threshold: float = 0.5, draws: int = 2000
) -> dict[str, dict[str, Any]]:
    """metric -> accuracy, kappa, precision, recall (of the human yes), false_yes, false_no, 95 % intervals, and
    how much its kappa is above the headline's (`kappa_gain`, on the same draws). `false_yes_stated` are those of
    false_yes whose answer states a gold word for word: what no comparison with the golds could refuse.

    Intervals resample questions, since several answers to one question are not independent; fixed seed.
    """
    human = np.array([r.human for r in rows])
    _, cluster = np.unique([normalize(r.question) for r in rows], return_inverse=True)
    states = np.array([_states(r) for r in rows])
    said = {name: np.array([says(r) for r in rows]) for name, says in calls(threshold).items()}
    drawn = {name: _drawn(call, human, cluster, draws) for name, call in said.items()}
    first = kappa(said[HEADLINE], human)
    out = {}
    for name, call in said.items():
        both = int(np.sum(call & human))
        out[name] = {
            "accuracy": float(np.mean(call == human)),
            "kappa": kappa(call, human),
            "precision": both / int(call.sum()) if call.any() else float("nan"),
            "recall": both / int(human.sum()) if human.any() else float("nan"),
            "false_yes": int(np.sum(call & ~human)),
            "false_yes_stated": int(np.sum(call & ~human & states)),
            "false_no": int(np.sum(~call & human)),
            "kappa_gain": kappa(call, human) - first,
            **_bounds("accuracy", drawn[name][0]),
            **_bounds("kappa", drawn[name][1]),
            **_bounds("kappa_gain", drawn[name][1] - drawn[HEADLINE][1]),
        }
    return out


def _states(row: Labelled) -> bool:
    """Whether the words of a gold stand in the answer as written; only case and punctuation are passed over."""
    said = f" {_plain(row.answer)} "
    told = map(_plain, row.golds)
    return any(gold and f" {gold} " in said for gold in told)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\d+(?:[.,]\d+)*|[^\W_]+", text.lower()))


def _drawn(
    call: np.ndarray, human: np.ndarray, cluster: np.ndarray, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and kappa of each draw, from the four counts of each question: a draw is one matrix product."""
    n = int(cluster.max()) + 1
    kinds = (call & human, call & ~human, ~call & human, ~call & ~human)
    counts = np.stack([np.bincount(cluster, weights=k.astype(float), minlength=n) for k in kinds], axis=1)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws)
    tp, fp, fn, tn = (weights @ counts).T
    total = tp + fp + fn + tn
    agree, yes, truth = (tp + tn) / total, (tp + fp) / total, (tp + fn) / total
    chance = yes * truth + (1 - yes) * (1 - truth)
    return agree, np.divide(agree - chance, 1 - chance, out=np.full(draws, np.nan), where=chance < 1)


def _bounds(name: str, values: np.ndarray) -> Mapping[str, list[float]]:
    values = values[~np.isnan(values)]
    return {f"{name}_ci": [float(v) for v in np.percentile(values, (2.5, 97.5))]} if len(values) else {}


def disagreements(rows: Sequence[Labelled], metric: str, threshold: float = 0.5) -> list[Labelled]:
    """Answers the metric calls otherwise than the human did, in file order."""
    says = calls(threshold)[metric]
    return [r for r in rows if says(r) != r.human]


def by_system(rows: Sequence[Labelled], threshold: float = 0.5) -> dict[str, dict[str, float]]:
    """system -> n, share that humans call correct, and the same by each metric; in the humans' order."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(s for r in rows for s in r.systems):
        own = [r for r in rows if name in r.systems]
        shares = {metric: float(np.mean([says(r) for r in own])) for metric, says in calls(threshold).items()}
        found[name] = {"n": float(len(own)), "human": float(np.mean([r.human for r in own])), **shares}
    return dict(sorted(found.items(), key=lambda pair: (-pair[1]["human"], pair[0])))


def out_of_order(systems: Mapping[str, Mapping[str, float]], metric: str) -> tuple[int, int]:
    """(pairs of systems that a metric puts in another order than the humans, pairs that the humans tell
    apart)."""
    names = list(systems)
    pairs = [
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if systems[a]["human"] > systems[b]["human"]
    ]
    return sum(systems[a][metric] <= systems[b][metric] for a, b in pairs), len(pairs)
