"""Which candidates without a verdict are evidence over again: by rare words shared, article and answer
string."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from icr_tasks.metrics.answers import normalize, subem_word
from icr_tasks.metrics.unspaced import spaced

REPEAT = 0.6  # share of a gold passage's rare words from which a candidate repeats it
SAME_ARTICLE, HOLDS_ANSWER = 0.3, 0.4  # the share that is enough beside these signals
_PLAIN = ("yes", "no")


def weights(texts: Sequence[str]) -> dict[str, float]:
    """Inverse document frequency of each word over the row's own hits: boilerplate of the topic weighs
    little."""
    seen = Counter(word for text in texts for word in set(spaced(normalize(text)).split()))
    return {word: math.log((1 + len(texts)) / n) for word, n in seen.items()}


def overlap(one: str, other: str, weight: dict[str, float], unseen: float) -> float:
    """Weight of the words both hold over that of the lighter text, 0-1."""
    a, b = set(spaced(normalize(one)).split()), set(spaced(normalize(other)).split())
    total = min(sum(weight.get(w, unseen) for w in a), sum(weight.get(w, unseen) for w in b))
    return sum(weight.get(w, unseen) for w in a & b) / total if total else 0.0


def repeats(row: dict[str, Any], candidates: Sequence[int]) -> list[int]:
    """Candidates (positions of `negatives`) that can hardly be called distractors."""
    if not candidates:
        return []
    weight, unseen = weights(row["negatives"]), math.log(1 + len(row["negatives"]))
    titles = row.get("titles") or [""] * len(row["negatives"])
    golds = {normalize(t) for t in row.get("gold_titles") or [] if t}
    answers = [a for a in row["answers"] if normalize(a) not in _PLAIN and len(normalize(a)) > 3]
    out = []
    for i in candidates:
        text = row["negatives"][i]
        share = max(overlap(text, gold, weight, unseen) for gold in row["gold_texts"])
        holds = bool(answers) and subem_word(text, answers) > 0
        same = bool(titles[i]) and normalize(titles[i]) in golds
        if (
            share >= REPEAT
            or (same and (holds or share >= SAME_ARTICLE))
            or (holds and share >= HOLDS_ANSWER)
        ):
            out.append(i)
    return out
