"""Which tokens of a prompt belong to which document, to the question, and to the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import IcrError


@dataclass(frozen=True)
class Spans:
    """`ids` (S,) token ids; `document` (S,) document number of each token, -1 elsewhere; `question` its token positions.

    `counts` (D,) tokens of each document.
    """

    ids: np.ndarray
    document: np.ndarray
    question: np.ndarray
    counts: np.ndarray


def locate(text: str, parts: Sequence[str], question: str, tokenizer: Any, *, special: bool) -> Spans:
    """Find `parts` in order in the rendered prompt, and the question's last occurrence outside them.

    A token belongs to the document its first character stands in. Raises IcrError when a part is not in the text.
    """
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    starts = np.array([a for a, _ in encoded["offset_mapping"]], np.int64)
    ends = np.array([b for _, b in encoded["offset_mapping"]], np.int64)
    bounds, at = [], 0
    for number, part in enumerate(parts):
        begin = text.find(part, at)
        if begin < 0:
            raise IcrError(
                f"document {number} is not in the prompt as it was rendered; a chat template changed the text"
            )
        at = begin + len(part)
        bounds.append((begin, at))
    document = np.full(len(starts), -1, np.int32)
    real = ends > starts  # special tokens have empty spans
    for number, (begin, end) in enumerate(bounds):
        document[(starts >= begin) & (starts < end) & real] = number
    counts = np.bincount(document[document >= 0], minlength=len(parts))
    if (counts == 0).any():
        raise IcrError(f"document {int(np.argmin(counts))} has no token of its own; it is empty")
    asked = text.find(question, at) if question else -1
    if asked < 0:
        asked = text.rfind(question, 0, bounds[0][0]) if question and bounds else -1
    inside = (starts >= asked) & (starts < asked + len(question)) & real if asked >= 0 else np.zeros_like(real)
    return Spans(np.array(encoded["input_ids"], np.int64), document, np.flatnonzero(inside), counts)
