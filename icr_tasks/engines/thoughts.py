"""The mark that ends a thought (`think_end_token`): stop strings count after it alone, and the thought stays in the text.

lm-eval's engines throw the thought away. What is left does not tell an answer from a thought that never ended: under a
template that opens the thought itself (Qwen3 Thinking, DeepSeek R1) every answer would be taken for an open thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

from ..errors import IcrError
from ..metrics.visible import visible
from . import session

_KNOWN = "</think>"  # a mark that scoring reads, for one of the user's own that it does not


def mark_of(lm: Any) -> str | None:
    """The mark as text; lm-eval takes the number of a token as well."""
    end = getattr(lm, "think_end_token", None)
    return lm.tokenizer.decode([end]) if isinstance(end, int) else end or None


def hidden(lm: Any) -> int | None:
    """The number of the mark's token where it is a special one, which lm-eval's transformers engine leaves out of a text."""
    given = getattr(lm, "think_end_token", None)
    if not given or not hasattr(lm, "tok_decode"):
        return None
    ids = [given] if isinstance(given, int) else lm.tokenizer(given, add_special_tokens=False)["input_ids"]
    return int(ids[0]) if len(ids) == 1 and not lm.tok_decode(ids) else None


def cut(text: str, until: Sequence[str], end: str | None = None) -> str:
    """The text up to the first stop string, as servers that take all of them return it; stops inside a
    thought that `end` ends do not count."""
    start = text.rfind(end) + len(end) if end and end in text else 0
    if end and not start and visible(text).closed is False:
        return text
    ends = [at for stop in until if stop and (at := text.find(stop, start)) >= 0]
    return text[: min(ends)] if ends else text


def whole(text: str, until: Sequence[str], end: str | None) -> tuple[str, bool]:
    """A generation as it is scored: `cut`, and a mark that scoring does not know as one that it does; and whether a
    stop string was met."""
    kept = cut(text, until, end)
    stopped = len(kept) < len(text)
    if end and end in kept and visible(f"a{end}b", opened=True).text != "b":
        before, _, after = kept.rpartition(end)
        kept = f"{before}{_KNOWN}{after}"
    return kept, stopped


class _Asked:
    """A request without its stop strings."""

    def __init__(self, request: Any) -> None:
        self._request = request

    @property
    def args(self) -> tuple[Any, dict[str, Any]]:
        """Prompt and generation arguments."""
        prompt, kwargs = self._request.args[:2]
        return prompt, {**kwargs, "until": []}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def keep(lm: Any) -> None:
    """Change a loaded engine of lm-eval in place, once, so that requests of ours keep their thoughts; others are
    answered as ever. Raises IcrError where the engine's text would not hold the mark."""
    if not getattr(lm, "think_end_token", None) or getattr(lm, "keeps_thoughts", False):
        return
    ask, end, given = lm.generate_until, mark_of(lm), lm.think_end_token
    if hidden(lm) is not None:
        raise IcrError(
            f"think_end_token={given} is a special token ({end}), which this engine leaves out of its answers: use "
            "--model icr-hf or icr-vllm"
        )

    @wraps(ask)
    def generate_until(requests: list[Any], *args: Any, **kwargs: Any) -> list[str]:
        mine, theirs = (
            [i for i, r in enumerate(requests) if session.ours(r) is own] for own in (True, False)
        )
        found: dict[int, str] = {}
        if theirs:
            found.update(zip(theirs, ask([requests[i] for i in theirs], *args, **kwargs), strict=True))
        if mine:
            lm.think_end_token = None
            try:
                texts = ask([_Asked(requests[i]) for i in mine], *args, **kwargs)
            finally:
                lm.think_end_token = given
            for i, text in zip(mine, texts, strict=True):
                until = requests[i].args[1].get("until") or ()
                found[i] = whole(text, [until] if isinstance(until, str) else until, end)[0]
        return [found[i] for i in range(len(requests))]

    lm.generate_until, lm.keeps_thoughts = generate_until, True
