"""What is retrieved from: the passages of an item as they are, or its documents cut into chunks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import orjson

from ..benchmarks.base import Prompt, Unit
from ..errors import IcrError
from ..storage import Lru
from .tokens import Spans, TokenCounter
from .words import WordSpans

# ---- chunk ---------------------------------------------------------------------------------------
# Cut a document into chunks of at most N tokens of the evaluated model's tokenizer; each document is
# tokenized once.

_SNAP = 8  # a chunk may end up to size / 8 tokens early, so that it ends between words


class Chunks(NamedTuple):
    """Spans of a document of `total` tokens: `starts`, `stops` (characters) and `sizes` (tokens), int32, one
    a chunk."""

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
    size, key = getattr(tokenizer, "_icr_key", (None, ""))
    if size != len(tokenizer):  # also when tokens were added since, or to a copy
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            state: Any = sorted(tokenizer.get_vocab().items())
        else:
            state = orjson.loads(backend.to_str())
            state.pop("truncation", None)
            state.pop("padding", None)
        key = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
        tokenizer._icr_key = (len(tokenizer), key)
    return key


def split(text: str, tokens: TokenCounter, size: int, overlap: int = 0, *, snap: bool = True) -> Chunks:
    """Chunks of at most `size` tokens that cover `text`; neighbours share `overlap` tokens.

    Without overlap the spans partition the text: joined, they are the text. `snap` ends a chunk before a word
    where one begins near the limit. IcrError without a fast tokenizer.
    """
    spans = tokens.spans(text)
    starts: list[int] = []
    stops: list[int] = []
    sizes: list[int] = []
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
    columns = [np.asarray(values, dtype=np.int32) for values in (starts, stops, sizes)]
    return Chunks(columns[0], columns[1], columns[2], total=n)


def _word_bound(text: str, spans: Spans | WordSpans, last: int, lowest: int) -> int:
    """The largest i in [lowest, last] such that token i begins a word; `last` when none does."""
    for i in range(last, lowest - 1, -1):
        start = spans[i][0]
        if text[start : start + 1].isspace() or (start and text[start - 1].isspace()):
            return i
    return last


def chunks(
    text: str, key: str, tokens: TokenCounter, size: int, overlap: int = 0, *, snap: bool = True
) -> Chunks:
    """`split`, remembered by document, tokenizer and chunking for the life of the process."""
    name = (key, tokenizer_key(tokens.tokenizer), size, overlap, snap)
    found = _CACHE.get(name)
    if found is None:
        found = split(text, tokens, size, overlap, snap=snap)
        _CACHE.put(name, found, 3 * found.sizes.nbytes + 200)
    return found


MIN_CHUNK = 8  # tokens of text that a chunk must have beside its document name


class Group(NamedTuple):
    """Chunks that are indexed or embedded together: a document, or all passages of an item in an order of
    their own.

    `key` names the content: the document, its title and where it was cut. Caches go by it. `recipe` names how
    the cuts were asked for, which two tokenizers may do alike and cut differently.
    """

    key: str
    members: np.ndarray  # chunk numbers, int
    recipe: str


@dataclass
class Pool:
    """Candidates of one item. Chunk i is `units[owner[i]].text[start[i]:stop[i]]`.

    `size` holds tokens with the rendering around them (None: count when needed), `total` about the tokens of
    the whole context. `key` is equal for pools of equal content and cuts, whatever the order of passages.
    """

    units: Sequence[Unit]
    owner: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    size: np.ndarray | None
    groups: list[Group]
    chunking: str
    total: int | None = None

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def key(self) -> str:
        """Names the content of the pool in caches: equal keys, equal texts."""
        return hashlib.blake2b("|".join(g.key for g in self.groups).encode(), digest_size=16).hexdigest()

    @property
    def recipe(self) -> str:
        """Names how the pool was asked for; seeds what must not depend on anything else, and never names a
        cache."""
        joined = "|".join([self.chunking, *(g.recipe for g in self.groups)])
        return joined if len(joined) < 100 else hashlib.sha256(joined.encode()).hexdigest()

    def unit(self, i: int) -> Unit:
        """Chunk i as a unit to render; it keeps its document's title."""
        unit = self.units[self.owner[i]]
        if self.size is None:
            return unit
        return unit.cut(int(self.start[i]), int(self.stop[i]))

    def text(self, i: int) -> str:
        """Chunk i as a retriever reads it: the title, if any, and the text."""
        unit = self.units[self.owner[i]]
        body = unit.text[self.start[i] : self.stop[i]]
        return f"{unit.title}\n{body}" if unit.title else body

    def texts(self, members: Sequence[int] | np.ndarray | None = None) -> Iterator[str]:
        """`text` of several chunks, of all by default."""
        return (self.text(int(i)) for i in (range(len(self)) if members is None else members))

    def gold(self) -> np.ndarray:
        """Which chunks are marked as evidence, bool."""
        return np.array([self.units[o].gold for o in self.owner], dtype=bool)


def passages(units: Sequence[Unit]) -> Pool:
    """Each unit is one candidate."""
    keys = np.array([text_key(f"{u.title}\n{u.text}") for u in units])
    order = np.argsort(keys, kind="stable")
    key = hashlib.sha256("".join(keys[order]).encode()).hexdigest()[:24]
    stop = np.array([len(u.text) for u in units])
    n = np.arange(len(units))
    return Pool(units, n, np.zeros_like(n), stop, None, [Group(f"p{key}", order, key)], "passages")


def documents(
    units: Sequence[Unit],
    tokens: TokenCounter,
    prompt: Prompt,
    size: int,
    overlap: int,
    *,
    exact: bool = False,
) -> Pool:
    """Each unit is cut so that a rendered chunk (with document name and separator) has at most `size` tokens.

    `exact` cuts raw text into `size` tokens wherever that falls, as the paper's code does. Empty documents
    give no chunk. IcrError when the document name leaves no room.
    """
    spare = 4 + size // 256  # cut text can need a token more than it had inside its document
    parts, groups, total, whole = [], [], 0, 0
    for number, unit in enumerate(units):
        around = frame(unit, tokens, prompt)
        room = size if exact else size - around - spare
        if room < min(MIN_CHUNK, size):
            raise IcrError(
                f"a chunk of {size} tokens has no room beside its document name and separator ({around} "
                "tokens); "
                "use a larger chunk= or a larger k"
            )
        if not unit.text.strip():
            continue
        key = text_key(unit.text)
        cut = chunks(unit.text, key, tokens, room, min(overlap, room - 1), snap=not exact)
        parts.append((np.full(len(cut.starts), number), cut.starts, cut.stops, cut.sizes + around))
        title = hashlib.sha256(unit.title.encode()).hexdigest()[:8] if unit.title else ""
        spans = hashlib.blake2b(cut.starts.tobytes() + cut.stops.tobytes(), digest_size=12).hexdigest()
        members = np.arange(total, total + len(cut.starts))
        groups.append(Group(f"d{key}{text_key(unit.title)}{spans}", members, f"{key}{title}-{room}"))
        total += len(cut.starts)
        whole += cut.total + around
    owner, start, stop, sizes = (
        [np.concatenate(c) for c in zip(*parts, strict=True)] if parts else [np.zeros(0, dtype=int)] * 4
    )
    return Pool(units, owner, start, stop, sizes, groups, f"{size}+{overlap}{'e' if exact else ''}", whole)


def frame(unit: Unit, tokens: TokenCounter, prompt: Prompt) -> int:
    """Tokens that rendering adds to a chunk of this document: its name and the separator to the next."""
    body = "word"
    part = prompt.parts([replace(unit, text=body)])[0]
    return max(tokens.count(part + prompt.joiner) - tokens.count(body), 0)
