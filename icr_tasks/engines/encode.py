"""Tokens of a long text as int32, piece by piece on all cores: 4 bytes a token are kept, little more at the
peak.

A tokenizer call on a whole prompt holds about 124 bytes a token while it runs and uses one core. Here the
text is cut into overlapping pieces, encoded as a batch, and joined where a word begins at the same character
with the same tokens for both neighbours: tokenizers split text into words from left to right, so what follows
is the same too. Where no such place exists (or without a fast tokenizer) the whole text is encoded at once.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 15  # characters
OVERLAP = 1 << 11
_AGREE = 8  # tokens in a row that must agree
_MARGIN = 256  # characters at a piece's end whose tokens may look at what follows


class _Stretch(NamedTuple):
    """Tokens of an overlap: ids, the character each begins at, and whether a word begins there."""

    ids: NDArray[np.int32]
    at: list[int]
    word: list[bool]


def encode(tokenizer: Any, text: str, *, special: bool = False, piece: int = PIECE) -> NDArray[np.int32]:
    """The ids `tokenizer(text, add_special_tokens=special)` gives, as an int32 array of shape (tokens,)."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None or len(text) <= piece + OVERLAP:
        return _whole(tokenizer, text, special)
    before, after = _specials(tokenizer) if special else ([], [])
    body = _pieces(fast, text, piece)
    if body is None:
        return _whole(tokenizer, text, special)
    return body if not before and not after else np.concatenate([before, body, after]).astype(np.int32)


def _whole(tokenizer: Any, text: str, special: bool) -> NDArray[np.int32]:
    return np.asarray(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"], dtype=np.int32)


def _specials(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids the tokenizer puts before and after a text."""
    plain, full = (tokenizer("a", add_special_tokens=s, verbose=False)["input_ids"] for s in (False, True))
    at = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
    return full[:at], full[at + len(plain) :]


def _pieces(fast: Any, text: str, piece: int) -> NDArray[np.int32] | None:
    starts = list(range(0, len(text), piece))
    out = np.empty(len(text) // 3 + 1024, dtype=np.int32)
    filled, batch = 0, max(2, os.cpu_count() or 1)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # lm-eval switches it off
    tail: _Stretch | None = None
    for first in range(0, len(starts), batch):
        group = starts[first : first + batch]
        encoded = fast.encode_batch([text[s : s + piece + OVERLAP] for s in group], add_special_tokens=False)
        for start, found in zip(group, encoded, strict=True):
            ids, skip = np.array(found.ids, dtype=np.int32), 0
            if tail is not None:
                head = _stretch(found, ids, start, 0, _token_at(found, OVERLAP, len(ids)))
                joint = _joint(tail, head, start + OVERLAP - _MARGIN)
                if joint is None:
                    return None
                filled, skip = filled - len(tail.ids) + joint[0], joint[1]
            size = len(ids) - skip
            if filled + size > len(out):
                out.resize(max(int(len(out) * 1.25), filled + size), refcheck=False)
            out[filled : filled + size] = ids[skip:]
            filled += size
            # What begins in the next piece's text, for the comparison with it.
            tail = _stretch(found, ids, start, max(_token_at(found, piece, len(ids)), skip), len(ids))
    out.resize(filled, refcheck=False)
    return out


def _token_at(found: Any, char: int, n_tokens: int) -> int:
    """The first token that begins at this character of the piece or after it."""
    low, high = 0, n_tokens
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if found.token_to_chars(middle)[0] < char else (low, middle)
    return low


def _stretch(found: Any, ids: NDArray[np.int32], start: int, low: int, high: int) -> _Stretch:
    # Asked token by token: the whole lists of a piece would cost more than its ids.
    at = [found.token_to_chars(i)[0] + start for i in range(low, high)]
    words = [found.token_to_word(i) for i in range(low, high)]
    begins = [i == 0 or words[i] is None or words[i] != words[i - 1] for i in range(len(words))]
    return _Stretch(ids[low:high].copy(), at, begins)


def _joint(a: _Stretch, b: _Stretch, limit: int) -> tuple[int, int] | None:
    """(i, j): after i tokens of the old tail go on with token j of the new piece; None when they never
    agree."""
    j = 0
    # Not the very first ones: whether a word begins there shows only in the token before.
    for i in range(1, len(a.ids) - _AGREE):
        if a.at[i + _AGREE] > limit:
            return None
        while j < len(b.at) and b.at[j] < a.at[i]:
            j += 1
        if j == 0 or j >= len(b.at) or not (a.word[i] and b.word[j]):
            continue
        same = slice(i, i + _AGREE), slice(j, j + _AGREE)
        if a.at[same[0]] == b.at[same[1]] and np.array_equal(a.ids[same[0]], b.ids[same[1]]):
            return i, j
    return None
