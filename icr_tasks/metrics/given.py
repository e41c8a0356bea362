"""What a generation is when it enters scoring: its visible text, what was hidden, and whether it was cut off.

One `Given` an item, made where the answer arrives (task, replay, `icr score`, reward); every consumer reads
`text`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .visible import as_text, visible

# Finish reasons of engines and servers that say "no more tokens".
_CUT = frozenset(
    {"length", "max_tokens", "max_output_tokens", "max_new_tokens", "model_length", "MAX_TOKENS"}
)


@dataclass(frozen=True, slots=True)
class Given:
    """`text` is what is scored. `unfinished`: the generation ended for want of tokens, or inside a thought.

    `thoughts` are what was hidden; `readable` is False for a null, a number or a list; `n_tokens` is the
    whole length.
    """

    text: str
    thoughts: tuple[str, ...] = ()
    unfinished: bool = False
    readable: bool = True
    n_tokens: int | None = None

    def thought_tokens(self, count: Callable[[str], int]) -> int:
        """How many tokens the hidden thoughts have, by a tokenizer's own count."""
        return sum(count(thought) for thought in self.thoughts)


def given(
    raw: Any,
    *,
    opened: bool = False,
    finish_reason: str | None = None,
    n_tokens: int | None = None,
    budget: int | None = None,
) -> Given:
    """A generation as it came (`raw`), read once.

    `opened`: the prompt ended inside a thought. `finish_reason` decides whether it was cut; without one
    `n_tokens` at or above `budget` does. An open thought is always unfinished, and so is a null that no
    engine says it stopped for.
    """
    text = as_text(raw)
    if text is not None and text == os.environ.get("LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER"):
        text = None  # lm_eval's own word for a null
    seen = visible(text or "", opened and text is not None)
    if finish_reason is not None:
        cut = finish_reason in _CUT
    else:
        cut = text is None or (n_tokens is not None and budget is not None and n_tokens >= budget > 0)
    return Given(seen.text, seen.thoughts, cut or not seen.closed, text is not None, n_tokens)
