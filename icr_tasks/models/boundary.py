"""Where the context ends in a prompt, told out of band: a marker inside the text would change what models read."""

from __future__ import annotations

from .measure import key

_OFFSETS: dict[str, int] = {}


def note(prompt: str, offset: int) -> None:
    """Remember that the context of this prompt ends before character `offset`."""
    _OFFSETS[key(prompt)] = offset


def offset_for(prompt: str) -> int | None:
    """Character offset at which the question part begins, or None when unknown."""
    return _OFFSETS.get(key(prompt))
