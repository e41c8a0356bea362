"""What an engine measured for a prompt, handed to the task that made the prompt (same process, no wire format)."""

from __future__ import annotations

import hashlib
from typing import Any

_FOUND: dict[str, dict[str, Any]] = {}


def key(prompt: str) -> str:
    """sha256 of the prompt text."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


def record(prompt: str, found: dict[str, Any]) -> None:
    """Add measurements (`timing`, `kv`, `error` ...) for this prompt."""
    _FOUND.setdefault(key(prompt), {}).update(found)


def lookup(prompt: str) -> dict[str, Any] | None:
    """What was recorded for this prompt, or None."""
    return _FOUND.get(key(prompt))


def clear() -> None:
    """Forget everything (between the cells of a sweep: the same prompt may run under another setting)."""
    _FOUND.clear()
