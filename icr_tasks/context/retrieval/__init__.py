"""Retrievers by name, and the stages behind them. A new retriever is one file with a `Retriever` subclass
that registers itself; one of somebody else's package counts the same (`icr_tasks.registry.RETRIEVERS`).

>>> make("head", {}).rank  # doctest: +ELLIPSIS
<bound method ...>
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ...registry import RETRIEVERS
from .base import Retriever

__all__ = ["RETRIEVERS", "Retriever", "make"]


def make(name: str, params: Mapping[str, Any], engine: Mapping[str, Any] | None = None) -> Retriever:
    """The retriever of that name with a setting's parameters and the stages these ask for (rerank, titles,
    decompose, iterate); one object per process and parameters.

    `engine` says how models are run: {"engine": "st" | "vllm" | "openai", "url": ..., "rerank_url": ...}.
    IcrError for names.
    """
    return _make(name, tuple(sorted(params.items())), tuple(sorted((engine or {}).items())))


def bare(name: str, params: Mapping[str, Any], engine: Mapping[str, Any] | None = None) -> Retriever:
    """The retriever alone. IcrError for an unknown name, with the nearest."""
    made: Retriever = RETRIEVERS[name](dict(params), dict(engine or {}))
    return made


@lru_cache(maxsize=16)
def _make(name: str, params: tuple[tuple[str, Any], ...], engine: tuple[tuple[str, Any], ...]) -> Retriever:
    from .iterate import Several
    from .rerank import Rerank
    from .titles import Titles

    given, run = dict(params), dict(engine)
    made = bare(name, given, run)
    if given.get("rerank"):
        made = Rerank(made, given, run)
    if given.get("titles"):
        made = Titles(made, given, run)
    if given.get("decompose") or given.get("iterate"):
        made = Several(made, given, run)
        if given.get("titles"):  # what the question itself names is not behind what later searches bring
            made = Titles(made, given, run)
    return made
