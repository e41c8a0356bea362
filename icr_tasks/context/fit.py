"""Cut the context, and only the context, until the rendered prompt fits. One function a rule, by name in
RULES.

A rule gets the units, the prompt and a budget of context tokens and returns (text, kept units). Rules:
`passages` drops whole units from the end; `documents` drops whole documents that do not fit, keeping the
order; `end` and `middle` cut at token bounds (HELMET's and InfiniteBench's rules).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..benchmarks.base import Prompt, Unit
from .tokens import TokenCounter


class DoesNotFit(Exception):
    """This item cannot be sent: what must stand in the prompt, or the smallest piece of context, exceeds the
    budget."""


class Fitted(NamedTuple):
    """`text` is the cut context; `kept` are the indices of the units that stand in it whole."""

    text: str
    kept: list[int]


def _whole(units: Sequence[Unit], prompt: Prompt, budget: int, tokens: TokenCounter, *, skip: bool) -> Fitted:
    """Greedy choice of whole units; exact, because the rendered result is counted before it is accepted."""
    sizes = tokens.counts([part + prompt.joiner for part in prompt.parts(units)])
    kept: list[int] = []
    used = 0
    for i, size in enumerate(sizes):
        if used + size <= budget:
            kept.append(i)
            used += size
        elif not skip:
            break
    while kept and tokens.count(text := prompt.context([units[i] for i in kept])) > budget:
        kept.pop()
    return Fitted(text if kept else "", kept)


def passages(units: Sequence[Unit], prompt: Prompt, budget: int, tokens: TokenCounter) -> Fitted:
    """Longest prefix of whole units."""
    return _whole(units, prompt, budget, tokens, skip=False)


def documents(units: Sequence[Unit], prompt: Prompt, budget: int, tokens: TokenCounter) -> Fitted:
    """Whole documents in order, skipping those that do not fit; a first document that is too long is cut at
    its end."""
    fitted = _whole(units, prompt, budget, tokens, skip=True)
    return fitted if fitted.kept else end(units[:1], prompt, budget, tokens)


def _cut(units: Sequence[Unit], prompt: Prompt, budget: int, tokens: TokenCounter, *, middle: bool) -> Fitted:
    text = prompt.context(units)
    spans = tokens.spans(text)
    size = min(budget, len(spans))
    while size > 0:
        head = size // 2 if middle else size
        tail = size - head
        left = spans[head - 1][1] if head else 0
        right = spans[len(spans) - tail][0] if tail else len(text)
        cut = text[:left] + text[right:]
        # Joining two ends can make a token more than before: count again, give way until it fits.
        over = tokens.count(cut) - budget
        if over <= 0:
            return Fitted(cut, _surviving(units, prompt, left, right))
        size -= over
    return Fitted("", [])


def _surviving(units: Sequence[Unit], prompt: Prompt, left: int, right: int) -> list[int]:
    """Units of which every character is outside the removed span [left, right)."""
    kept, start = [], 0
    for i, part in enumerate(prompt.parts(units)):
        stop = start + len(part)
        if stop <= left or start >= right or left >= right:  # the last: nothing was removed
            kept.append(i)
        start = stop + len(prompt.joiner)
    return kept


def end(units: Sequence[Unit], prompt: Prompt, budget: int, tokens: TokenCounter) -> Fitted:
    """Keep the first `budget` tokens (HELMET model_utils.py; the paper)."""
    return _cut(units, prompt, budget, tokens, middle=False)


def middle(units: Sequence[Unit], prompt: Prompt, budget: int, tokens: TokenCounter) -> Fitted:
    """Keep both ends (InfiniteBench eval_utils.py, LongBench pred.py)."""
    return _cut(units, prompt, budget, tokens, middle=True)


RULES: dict[str, Callable[[Sequence[Unit], Prompt, int, TokenCounter], Fitted]] = {
    "passages": passages,
    "documents": documents,
    "end": end,
    "middle": middle,
}
