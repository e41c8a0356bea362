"""SubEM and its word-safe variant, exact match and token F1. Each takes text and the accepted answers, returns 0-1."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from .normalize import normalize, normalize_official

_YES_NO = ("yes", "no", "noanswer")


def subem(pred: str, golds: Sequence[str]) -> float:
    """1 if a normalised gold is a substring of the normalised prediction; an empty gold never matches."""
    text = normalize(pred)
    return float(any((g := normalize(gold)) != "" and g in text for gold in golds))


def subem_official(pred: str, golds: Sequence[str]) -> float:
    """HELMET's own: ASCII normalisation, and a gold that normalises to nothing matches everything."""
    text = normalize_official(pred)
    return float(any(normalize_official(gold) in text for gold in golds))


def subem_word(pred: str, golds: Sequence[str]) -> float:
    """As `subem`, but the gold must start and end at word bounds: "no" is not in "unknown", "1" not in "1991"."""
    text = normalize(pred)
    return float(any((g := normalize(gold)) != "" and _word(g).search(text) is not None for gold in golds))


def _word(gold: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(gold)}(?!\w)")


def em(pred: str, golds: Sequence[str], norm: Callable[[str], str] = normalize) -> float:
    """1 if the normalised prediction equals a normalised gold."""
    text = norm(pred)
    return float(any(norm(gold) == text and text != "" for gold in golds))


def f1(pred: str, golds: Sequence[str], norm: Callable[[str], str] = normalize) -> float:
    """Best token F1 over golds; a yes/no on either side must match exactly (HELMET utils.py f1_score)."""
    return max((_f1(norm(pred), norm(gold)) for gold in golds), default=0.0)


def _f1(pred: str, gold: str) -> float:
    if (pred in _YES_NO or gold in _YES_NO) and pred != gold:
        return 0.0
    return token_f1(pred.split(), gold.split())


def token_f1(pred: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two token multisets; 0 when nothing is shared."""
    common = sum((Counter(pred) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(pred), common / len(gold)
    return 2 * precision * recall / (precision + recall)
