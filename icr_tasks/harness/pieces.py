"""`--model vllm` of lm-eval is asked in pieces, so that its memory does not grow with the data.

It tokenizes every prompt of a run before the first is answered: 133 bytes a token at the peak, 30 times the text.
Here it gets about a million tokens at a time, more than one GPU's KV cache holds of an 8B model, and tokenizes them
as icr-vllm does. A run of one piece is left alone; in a longer one prompts that share a document stand together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, wraps
from typing import Any

from ..engines import answers, encode

TOKENS = 1 << 20  # of one piece: 8 MB as lists that share their numbers, 40 MB where each has its own


def prepare(lm: Any) -> None:
    """Change a loaded `vllm` engine of lm-eval in place, once; any other engine is left alone."""
    lm = getattr(lm, "lm", lm)  # behind lm-eval's response cache
    if not type(lm).__module__.endswith("vllm_causallms") or getattr(lm.generate_until, "icr", False):
        return
    ask, encoded = lm.generate_until, lm.tok_encode

    @wraps(ask)
    def in_pieces(requests: list[Any], *args: Any, **kwargs: Any) -> list[str]:
        found: dict[int, str] = {}
        for part in parts(requests):
            found.update(zip(part, ask([requests[i] for i in part], *args, **kwargs), strict=True))
        return [found[i] for i in range(len(requests))]

    @wraps(encoded)
    def tokens(string: Any, add_special_tokens: bool | None = None, **kwargs: Any) -> Any:
        plain = isinstance(string, str) or add_special_tokens is not None or kwargs
        if plain or getattr(lm.tokenizer, "backend_tokenizer", None) is None:
            return encoded(string, add_special_tokens, **kwargs)
        return [_ids(lm, text) for text in string]

    in_pieces.icr = True  # type: ignore[attr-defined]
    lm.generate_until, lm.tok_encode = in_pieces, tokens


def parts(requests: Sequence[Any], tokens: int | None = None) -> Iterator[list[int]]:
    """Places of the requests, at most `tokens` (default: TOKENS) a part; all in one part as they are, or more in the
    order of their beginnings."""
    most = TOKENS if tokens is None else tokens
    sizes = [_size(request) for request in requests]
    if sum(sizes) <= most:
        yield list(range(len(requests)))
        return
    part: list[int] = []
    held = 0
    for i in answers.by_prefix(requests, range(len(requests))):
        if part and held + sizes[i] > most:
            yield part
            part, held = [], 0
        part.append(i)
        held += sizes[i]
    yield part


def _size(request: Any) -> int:
    """Tokens of a prompt: as counted for our tasks, else guessed from its characters."""
    known = getattr(request, "size", None)
    return int(known) if known is not None else len(answers.text_of(request.args[0])) // 4


def _ids(lm: Any, text: str) -> list[int]:
    """What lm-eval's own call gives for this prompt."""
    from lm_eval.models.utils import has_bos_prefix

    bos = None if lm.prefix_token_id is None else lm.tokenizer.decode(lm.prefix_token_id)
    special = lm.add_bos_token is not False and not has_bos_prefix(text, bos)
    numbers = _numbers(len(lm.tokenizer))
    return [
        numbers[i] if i < len(numbers) else i
        for i in encode.encode(lm.tokenizer, text, special=special).tolist()
    ]


@lru_cache(maxsize=1)
def _numbers(vocabulary: int) -> list[int]:
    """Every id once: Python makes a new number of 32 bytes for each token otherwise, beside its place in a list."""
    return list(range(vocabulary))
