"""What is retrieved from: the passages of an item as they are, or its documents cut into chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..data.item import Unit
from ..errors import IcrError
from .chunk import chunks, text_key
from .prompts import Prompt
from .tokens import TokenCounter

MIN_CHUNK = 8  # tokens of text that a chunk must have beside its document name


class Group(NamedTuple):
    """Chunks that are indexed or embedded together: a document, or all passages of an item in an order of their own."""

    key: str
    members: np.ndarray  # chunk numbers, int


@dataclass
class Pool:
    """Candidates of one item. Chunk i is `units[owner[i]].text[start[i]:stop[i]]`.

    `size` holds tokens with the rendering around them (None: count when needed), `total` about the tokens of the whole
    context. `key` is equal for pools of equal
    content and chunking, whatever the order of passages.
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
        """Names the pool in caches."""
        joined = "|".join([self.chunking, *(g.key for g in self.groups)])
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

    def texts(self, members: Sequence[int] | np.ndarray) -> Iterator[str]:
        """`text` of several chunks."""
        return (self.text(int(i)) for i in members)

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
    return Pool(units, n, np.zeros_like(n), stop, None, [Group(key, order)], "passages")


def documents(units: Sequence[Unit], tokens: TokenCounter, prompt: Prompt, size: int, overlap: int, *, exact: bool = False) -> Pool:  # fmt: skip
    """Each unit is cut so that a rendered chunk (with document name and separator) has at most `size` tokens.

    `exact` cuts raw text into `size` tokens wherever that falls, as the paper's code does. Empty documents give
    no chunk. IcrError when the document name leaves no room.
    """
    spare = 0 if exact else 4 + size // 256  # cut text can need a token more than it had inside its document
    parts, groups, total, whole = [], [], 0, 0
    for number, unit in enumerate(units):
        around = frame(unit, tokens, prompt)
        room = size if exact else size - around - spare
        if room < min(MIN_CHUNK, size):
            raise IcrError(
                f"a chunk of {size} tokens has no room beside its document name and separator ({around} tokens); "
                "use a larger chunk= or a larger k"
            )
        if not unit.text.strip():
            continue
        key = text_key(unit.text)
        cut = chunks(unit.text, key, tokens, room, min(overlap, room - 1), snap=not exact)
        parts.append((np.full(len(cut.starts), number), cut.starts, cut.stops, cut.sizes + around))
        title = hashlib.sha256(unit.title.encode()).hexdigest()[:8] if unit.title else ""
        groups.append(Group(f"{key}{title}-{room}", np.arange(total, total + len(cut.starts))))
        total += len(cut.starts)
        whole += cut.total + around
    columns = [np.concatenate(c) if c else np.zeros(0, dtype=int) for c in zip(*parts, strict=True)] or [np.zeros(0, dtype=int)] * 4  # fmt: skip
    return Pool(units, *columns, groups, f"{size}+{overlap}{'e' if exact else ''}", whole)


def frame(unit: Unit, tokens: TokenCounter, prompt: Prompt) -> int:
    """Tokens that rendering adds to a chunk of this document: its name and the separator to the next."""
    body = "word"
    part = prompt.parts([replace(unit, text=body)])[0]
    return max(tokens.count(part + prompt.joiner) - tokens.count(body), 0)
