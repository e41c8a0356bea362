"""How well a ranking found the evidence: recall, reciprocal rank (MRR) and nDCG within the k tokens that are
shown.

Ranks count from 1 in the retriever's order, whatever the order in the prompt. Where passages are marked, each
gold passage is one relevant result; elsewhere the first chunk that holds the answer is the only one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

TYPES = ("kind", "level", "difficulty")  # keys of an item that say what kind of question it is


def measured(digest: Mapping[str, Any]) -> dict[str, float] | None:
    """{"recall", "mrr", "ndcg"} of an item, each 0-1; None where its evidence is not known."""
    if digest.get("recall") is None or digest.get("ranks") is None:
        return None
    ranks, relevant = digest["ranks"], int(digest.get("n_gold") or 1)
    gain = sum(1 / math.log2(1 + rank) for rank in ranks)
    best = sum(1 / math.log2(1 + rank) for rank in range(1, relevant + 1))
    return {
        "recall": float(digest["recall"]),
        "mrr": 1 / min(ranks) if ranks else 0.0,
        "ndcg": gain / best,
    }


def type_of(keys: Mapping[str, Any]) -> str:
    """The question type of an item's keys, "all" without one."""
    return next((f"{name} {keys[name]}" for name in TYPES if keys.get(name) is not None), "all")


def by_type(
    items: Sequence[tuple[Mapping[str, Any], Any]], digests: Sequence[Mapping[str, Any]]
) -> dict[str, list[tuple[dict[str, float], Any]]]:
    """Question type -> (measures, cluster) of its items with known evidence, "all" first; `items` are (keys,
    cluster)."""
    out: dict[str, list[tuple[dict[str, float], Any]]] = {"all": []}
    for (keys, cluster), digest in zip(items, digests, strict=True):
        found = measured(digest)
        if found is not None:
            out["all"].append((found, cluster))
            if (name := type_of(keys)) != "all":
                out.setdefault(name, []).append((found, cluster))
    return out if len(out) > 2 else {"all": out["all"]}
