"""What served models counted and charged, an item, a task and a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FIELDS = ("tokens_in", "tokens_cached", "tokens_out", "tokens_reasoning", "usd")  # of a ledger row


def add(sums: dict[str, float], rows: Iterable[Mapping[str, Any]]) -> None:
    """Add what the rows of served models say to the sums of their run; USD to the millionth."""
    for row in rows:
        for name in FIELDS:
            if name in row:
                sums[name] = sums.get(name, 0) + row[name]
    if "usd" in sums:
        sums["usd"] = round(sums["usd"], 9)


def count(tokens: dict[str, int], counts: dict[str, Any], rows: list[Any]) -> None:
    """What a served model counted and charged, and the tokens of thoughts; each with the number of items it was
    told of."""
    for name, field in (("cached", "tokens_cached"), ("reasoning", "tokens_reasoning")):
        told = [row[field] for row in rows if field in row]
        if told:
            add_told(tokens, counts, name, told)
    thoughts = [
        row["n_thought_tokens"] for row in rows if "n_thought_tokens" in row and "tokens_reasoning" not in row
    ]
    if thoughts:
        add_told(tokens, counts, "reasoning", thoughts)
    prices = [row["usd"] for row in rows if "usd" in row]
    if prices:
        add_told(counts, counts, "usd", prices)


def add_told(sums: dict[str, Any], counts: dict[str, Any], name: str, told: list[Any]) -> None:
    """Add to a sum, and to the number of items that it is of: those of a mean are not those that failed."""
    sums[name] = sums.get(name, 0) + sum(told)
    of = counts.setdefault("n_told", {})
    of[name] = of.get(name, 0) + len(told)
