"""Cut a document into chunks of at most N tokens of the evaluated model's tokenizer; each document is tokenized once."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np

from .lru import Lru
from .tokens import TokenCounter

_SNAP = 8  # a chunk may end up to size / 8 tokens early, so that it ends between words


class Chunks(NamedTuple):
    """Spans of a document of `total` tokens: `starts`, `stops` (characters) and `sizes` (tokens), int32, one a chunk."""

    starts: np.ndarray
    stops: np.ndarray
    sizes: np.ndarray
    total: int


_CACHE: Lru[tuple[Any, ...], Chunks] = Lru(64 << 20)


def text_key(text: str) -> str:
    """Content hash that names a document everywhere: 24 hex digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def tokenizer_key(tokenizer: Any) -> str:
    """Hash of what a tokenizer does (not of its name or padding state): 16 hex digits."""
    key = getattr(tokenizer, "_icr_key", None)
    if key is None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            state: Any = sorted(tokenizer.get_vocab().items())
        else:
            state = json.loads(backend.to_str())
            state.pop("truncation", None)
            state.pop("padding", None)
        key = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
        tokenizer._icr_key = key
    return key


def split(text: str, tokens: TokenCounter, size: int, overlap: int = 0, *, snap: bool = True) -> Chunks:
    """Chunks of at most `size` tokens that cover `text`; neighbours share `overlap` tokens.

    Without overlap the spans partition the text: joined, they are the text. `snap` ends a chunk before a word
    where one begins near the limit. IcrError without a fast tokenizer.
    """
    spans = tokens.offsets(text)
    starts, stops, sizes = [], [], []
    first, n = 0, len(spans)
    while first < n:
        last = min(first + size, n)
        if snap and last < n:
            last = _word_bound(text, spans, last, max(last - size // _SNAP, first + overlap + 1))
        starts.append(spans[first][0] if first else 0)
        stops.append(spans[last][0] if last < n else len(text))
        sizes.append(last - first)
        if last == n:
            break
        first = max(last - overlap, first + 1)
    return Chunks(*(np.asarray(values, dtype=np.int32) for values in (starts, stops, sizes)), total=n)


def _word_bound(text: str, spans: list[tuple[int, int]], last: int, lowest: int) -> int:
    """The largest i in [lowest, last] such that token i begins a word; `last` when none does."""
    for i in range(last, lowest - 1, -1):
        start = spans[i][0]
        if text[start : start + 1].isspace() or (start and text[start - 1].isspace()):
            return i
    return last


def chunks(text: str, key: str, tokens: TokenCounter, size: int, overlap: int = 0, *, snap: bool = True) -> Chunks:
    """`split`, remembered by document, tokenizer and chunking for the life of the process."""
    name = (key, tokenizer_key(tokens.tokenizer), size, overlap, snap)
    found = _CACHE.get(name)
    if found is None:
        found = split(text, tokens, size, overlap, snap=snap)
        _CACHE.put(name, found, 3 * found.sizes.nbytes + 200)
    return found
