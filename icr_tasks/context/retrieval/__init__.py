"""Retrievers by name. A new one is one file with a `Retriever` subclass and one line here.

>>> make("head", {}).rank  # doctest: +ELLIPSIS
<bound method ...>
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

from ...errors import unknown
from .base import Retriever

__all__ = ["RETRIEVERS", "Retriever", "make"]

# name -> "module:class", relative to this package; modules load when used
RETRIEVERS: dict[str, str] = {
    "bm25": ".bm25:BM25",
    "dense": ".dense:Dense",
    "hybrid": ".controls:Hybrid",
    "oracle": ".controls:Oracle",
    "random": ".controls:Random",
    "head": ".controls:Head",
}


def make(name: str, params: Mapping[str, Any], engine: Mapping[str, Any] | None = None) -> Retriever:
    """The retriever of that name with a setting's parameters; one object per process and parameters.

    `engine` says how to run an embedder: {"engine": "st" | "vllm" | "openai", "url": ..., ...}. IcrError for names.
    """
    return _make(name, tuple(sorted(params.items())), tuple(sorted((engine or {}).items())))


@lru_cache(maxsize=16)
def _make(name: str, params: tuple[tuple[str, Any], ...], engine: tuple[tuple[str, Any], ...]) -> Retriever:
    if name not in RETRIEVERS:
        raise unknown("retriever", name, RETRIEVERS)
    module, _, kind = RETRIEVERS[name].partition(":")
    return getattr(import_module(module, __name__), kind)(dict(params), dict(engine))
