"""A text that is to be repeated behind a given string: how much of it is the same (openai/mrcr's function)."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from . import scorers

if TYPE_CHECKING:
    from ..benchmarks.base import Item


@scorers.metric("mrcr", reads="text")
def ratio(text: str, item: Item) -> float:
    """0 unless the response starts with the item's `prefix`, else difflib's ratio of what follows (the card's
    function). Blanks before it, which engines and chat templates add, are not the model's."""
    prefix, response = item.fields["prefix"], text.lstrip()
    if not response.startswith(prefix):
        return 0.0
    return SequenceMatcher(None, response.removeprefix(prefix), item.answers[0].removeprefix(prefix)).ratio()


@scorers.metric("mrcr_prefix", reads="text")
def prefixed(text: str, item: Item) -> float:
    """Whether the response starts with the item's `prefix`, as it was told to."""
    return float(text.lstrip().startswith(item.fields["prefix"]))
