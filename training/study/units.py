"""Neighbouring passages joined to one numbered retrieval unit (LongRAG); ids and texts of the gold follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..data.store import Record

Cut = Callable[[list[str]], list[int]]  # passages -> the unit of each


def same(passages: list[str]) -> list[int]:
    """Every passage a unit of its own."""
    return list(range(len(passages)))


def every(size: int) -> Cut:
    """Units of so many passages."""
    return lambda passages: [i // size for i in range(len(passages))]


def budget(tokens: int, count: Callable[[str], int]) -> Cut:
    """Passages fill a unit until the next one would exceed the budget; a longer passage is a unit of its
    own."""

    def cut(passages: list[str]) -> list[int]:
        unit, held, out = 0, 0, []
        for text in passages:
            size = count(text)
            if held and held + size > tokens:
                unit, held = unit + 1, 0
            held += size
            out.append(unit)
        return out

    return cut


def joined(row: Mapping[str, object], cut: Cut) -> Record:
    """The row with its passages joined to units; gold ids, the data set's own too, and gold texts are those of
    the units."""
    given: Record = dict(row)
    passages = list(given["passages"])
    of = cut(passages)
    units = [
        "\n".join(p for p, u in zip(passages, of, strict=True) if u == unit) for unit in range(of[-1] + 1)
    ]
    gold = sorted({of[i] for i in given["gold_ids"]})
    own = given.get("original_ids")
    names = {
        "passages": units,
        "gold_ids": gold,
        "gold_docs": [units[i] for i in gold],
        "original_ids": sorted({of[i] for i in own}) if own else gold,
    }
    return {k: v for k, v in given.items() if k not in ("target", "n_tokens")} | names
