"""Retrievers by name. A new one is one file with a `Retriever` subclass that registers itself (`@retriever`).

>>> make("head", {}).rank  # doctest: +ELLIPSIS
<bound method ...>
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ...registry import RETRIEVERS
from .base import Retriever

__all__ = ["Retriever", "make"]


def make(name: str, params: Mapping[str, Any], engine: Mapping[str, Any] | None = None) -> Retriever:
    """The retriever of that name with a setting's parameters; one object per process and parameters.

    `engine` says how to run an embedder: {"engine": "st" | "vllm" | "openai", "url": ..., ...}. IcrError for names.
    """
    return _make(name, tuple(sorted(params.items())), tuple(sorted((engine or {}).items())))


@lru_cache(maxsize=16)
def _make(name: str, params: tuple[tuple[str, Any], ...], engine: tuple[tuple[str, Any], ...]) -> Retriever:
    return RETRIEVERS[name](dict(params), dict(engine))
