"""The record every benchmark is read into. Context is loaded on demand and never stored on the item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of context: a passage (HELMET, synth), a filing (Loong) or a whole book (InfiniteBench).

    `relevance` is the benchmark's own graded score of a passage (HELMET's reranker), None where it gives none.
    `official_title` is what the benchmark's own template prints where that differs from `title` (Loong).
    """

    id: str
    text: str
    title: str = ""
    gold: bool = False
    relevance: float | None = None
    official_title: str = ""

    def cut(self, start: int, stop: int) -> Unit:
        """Characters [start, stop) as a unit of their own, under the same titles."""
        return replace(self, id=f"{self.id}#{start}", text=self.text[start:stop], relevance=None)


@dataclass(frozen=True, slots=True)
class Item:
    """One example.

    `units()` reads the context from disk each time it is called. `cluster` names the unit items share
    (question in HELMET, book in InfiniteBench, filings in Loong). `keys` are breakdown columns
    (depth, difficulty, domain, level ...). `fields` holds what the benchmark's templates or scorer
    need besides (instruction, dict answers, demonstrations ...), JSON-serialisable; its `documents`, if any, say which
    files the context was read from, in the order shown, and are logged.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    cluster: str
    units: Callable[[], Sequence[Unit]]
    options: tuple[str, ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ItemSet:
    """Items of one task and where they come from.

    `n_expected` is the official count (paper, official repository); `official` is False when the file at
    hand is not the official one (other count or other hash), which every report must say.
    """

    items: Sequence[Item]
    n_expected: int
    source: str
    revision: str
    official: bool
    notes: tuple[str, ...] = ()
