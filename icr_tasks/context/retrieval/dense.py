"""Cosine similarity of embeddings. Vectors of chunks and questions are kept on disk, so a prepared run loads
no embedder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import IcrError
from ...registry import retriever
from ...settings import EMBEDDING
from ...storage import Lru
from ..pool import Group, Pool
from .base import Retriever
from .embedder import Embedder
from .reading import Reading
from .vectors import get, has, name_of

_BATCH = 1024  # texts embedded in one call: the engine sorts them by length


class _Plan(NamedTuple):
    """How a group is embedded: piece -> index into the group's members; the name of those texts; pieces that
    even so are longer than what is read."""

    owners: np.ndarray
    name: str
    n_cut: int


class Now(NamedTuple):
    """The embedder as its files are at this moment: what it reads, where its vectors lie, its prefix of
    documents."""

    reading: Reading
    where: Path
    prefix: str

    def path(self, plan: _Plan) -> Path:
        return self.where / plan.name[:2] / f"{plan.name}.npy"

    def question(self, text: str) -> Path:
        return self.where / "questions" / f"{name_of([text])}.npy"


_PLANS: Lru[tuple[Any, ...], _Plan] = Lru(32 << 20)


@retriever("dense", params=EMBEDDING)
class Dense(Retriever):
    """`params`: embedder, revision, instruction. A chunk longer than the embedder reads is embedded in
    pieces."""

    def __init__(self, params: dict[str, Any], engine: dict[str, Any] | None = None) -> None:
        super().__init__(params, engine)
        self.embedder = Embedder(str(params["embedder"]), str(params.get("revision") or ""), self.engine)

    @property
    def instruction(self) -> str:
        """The text put before a question; "" when switched off or when the embedder has none."""
        return self.embedder.prompt("query") if self.params.get("instruction", True) else ""

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """Cosine of question and chunk; of a chunk's best piece where it has several."""
        out = np.full(len(pool), -np.inf, dtype=np.float32)
        if not len(pool):
            return out
        now = self._now()
        vector = self._query(now, query)
        for group in pool.groups:
            now, owners, found = self._stored(now, pool, group)
            if found.shape[1:] != vector.shape:
                raise IcrError(
                    f"embedder {self.embedder.name!r} gives {len(vector)} dimensions, its stored vectors "
                    "have "
                    f"{found.shape[1]}; give its revision (revision=...), or delete {now.where}"
                )
            np.maximum.at(out, group.members[owners], np.asarray(found, dtype=np.float32) @ vector)
        return out

    def notes(self, pool: Pool, query: str) -> dict[str, Any]:
        """What was read: the limit, the pieces, and the texts of which not everything was (the question, at
        most)."""
        now = self._now()
        plans = [self._plan(now, pool, group)[0] for group in pool.groups]
        return {
            **now.reading.describe(),
            "n_pieces": sum(len(plan.owners) for plan in plans),
            "n_truncated": sum(plan.n_cut for plan in plans)
            + (now.reading.head(query, self.instruction) != query),
        }

    def prepare(self, pools: Sequence[Pool], queries: Sequence[str]) -> None:
        """Embed and store the chunks of the pools and the questions not stored yet, in large batches."""
        now = self._now()
        waiting: dict[Path, list[str]] = {}
        for pool in pools:
            for group in pool.groups:
                now, plan, texts = self._missing(now, pool, group)
                if texts:
                    waiting[now.path(plan)] = texts
                if sum(map(len, waiting.values())) >= _BATCH:
                    self._flush(waiting)
        prefix = self.instruction
        for query in dict.fromkeys(queries):
            text = prefix + now.reading.head(query, prefix)
            if not has(now.question(text), 1):
                waiting[now.question(text)] = [text]
            if len(waiting) >= _BATCH:
                self._flush(waiting)
        self._flush(waiting)

    def _flush(self, waiting: dict[Path, list[str]]) -> None:
        """Embed and store, in one call, what is waiting."""
        if not waiting:
            return
        rows = self.embedder.encode([text for texts in waiting.values() for text in texts])
        at = 0
        for path, texts in waiting.items():
            get(path, len(texts), partial(_rows, rows, at, at + len(texts)))
            at += len(texts)
        waiting.clear()

    def describe(self) -> dict[str, Any]:
        """Name, pinned revision, and the instruction as it was put before the question."""
        return {
            "embedder": self.embedder.name,
            "revision": self.embedder.revision,
            "instruction": self.instruction,
        }

    def _now(self) -> Now:
        where = self.embedder.vectors
        return Now(self.embedder.reading_at(where), where, self.embedder.prompt("document"))

    def _stored(self, now: Now, pool: Pool, group: Group) -> tuple[Now, np.ndarray, np.ndarray]:
        """(the embedder as it is, piece -> index into the group's members, vectors of the pieces)."""
        now, plan, texts = self._missing(now, pool, group)
        return now, plan.owners, get(now.path(plan), len(plan.owners), partial(self.embedder.encode, texts))

    def _missing(self, now: Now, pool: Pool, group: Group) -> tuple[Now, _Plan, list[str]]:
        """(the embedder as it is, a group's plan, the texts to embed for it: none where its vectors are
        stored)."""
        plan, _ = self._plan(now, pool, group)
        if has(now.path(plan), len(plan.owners)):
            return now, plan, []
        self.embedder.load()  # says what it really reads
        now = self._now()
        return now, *self._plan(now, pool, group, texts=True)

    def _plan(self, now: Now, pool: Pool, group: Group, texts: bool = False) -> tuple[_Plan, list[str]]:
        """How to embed a group, remembered by its content; with `texts` also the strings to embed."""
        key = (group.key, now.prefix, now.reading.tokens, str(now.where))
        found = _PLANS.get(key)
        if found is not None and not texts:
            return found, []
        split = now.reading.split(list(pool.texts(group.members)), now.prefix)
        strings = [now.prefix + piece for pieces in split for piece in pieces]
        owners = np.repeat(np.arange(len(split)), [len(pieces) for pieces in split])
        plan = _Plan(owners, name_of(strings), len(now.reading.overlong(strings)))
        _PLANS.put(key, plan, owners.nbytes + 300)
        return plan, strings

    def _query(self, now: Now, query: str) -> np.ndarray:
        prefix = self.instruction
        text = prefix + now.reading.head(query, prefix)
        found = get(now.question(text), 1, lambda: self.embedder.encode([text]))
        return np.asarray(found[0], dtype=np.float32)


def _rows(rows: np.ndarray, start: int, stop: int) -> np.ndarray:
    return rows[start:stop]
