"""Cosine similarity of embeddings. Vectors of chunks and questions are kept on disk, so a prepared run loads no embedder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..pool import Group, Pool
from . import vectors
from .base import Retriever
from .embedder import Embedder

log = logging.getLogger("icr_tasks")


class Dense(Retriever):
    """`params`: embedder, revision, instruction. A chunk longer than the embedder reads is embedded in pieces."""

    def __init__(self, params: dict[str, Any], engine: dict[str, Any] | None = None) -> None:
        super().__init__(params, engine)
        self.embedder = Embedder(str(params["embedder"]), str(params.get("revision") or ""), self.engine)
        self._folder: Path = vectors.folder(self.embedder.slug)

    @property
    def instruction(self) -> str:
        """The text put before a question; "" when switched off or when the embedder has none."""
        return self.embedder.prompt("query") if self.params.get("instruction", True) else ""

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """Cosine of question and chunk; of a chunk's best piece where it has several."""
        out = np.full(len(pool), -np.inf, dtype=np.float32)
        if not len(pool):
            return out
        vector = self._query(query)
        for group in pool.groups:
            owners, found = self._group(pool, group)
            np.maximum.at(out, group.members[owners], np.asarray(found, dtype=np.float32) @ vector)
        return out

    def prepare(self, pools: Sequence[Pool], queries: Sequence[str]) -> None:
        """Embed and store the chunks of the pools and the questions not stored yet."""
        for pool in pools:
            for group in pool.groups:
                self._group(pool, group)
        missing = [q for q in dict.fromkeys(queries) if not vectors.has(self._query_path(q), 1)]
        for start in range(0, len(missing), 256):
            batch = missing[start : start + 256]
            for query, row in zip(batch, self.embedder.encode([self.instruction + q for q in batch]), strict=True):
                vectors.get(self._query_path(query), 1, lambda row=row: row[None])

    def describe(self) -> dict[str, Any]:
        """Name, pinned revision, and the instruction as it was put before the question."""
        return {"embedder": self.embedder.name, "revision": self.embedder.revision, "instruction": self.instruction}

    def _group(self, pool: Pool, group: Group) -> tuple[np.ndarray, np.ndarray]:
        """(index into the group's members, vector) of every piece."""
        limit = self.embedder.max_chars
        longest = int((pool.stop - pool.start)[group.members].max(initial=0))
        if limit is None or longest <= limit:
            owners, pieces = np.arange(len(group.members)), None
        else:
            split = [_pieces(text, limit) for text in pool.texts(group.members)]
            owners = np.repeat(np.arange(len(split)), [len(s) for s in split])
            pieces = [piece for part in split for piece in part]
        name = hashlib.sha256(f"{pool.chunking}/{limit}".encode()).hexdigest()[:8]
        path = self._folder / group.key[:2] / f"{group.key}-{name}.npy"
        prefix = self.embedder.prompt("document")

        def build() -> np.ndarray:
            texts = pieces if pieces is not None else list(pool.texts(group.members))
            return self.embedder.encode([prefix + t for t in texts])

        return owners, vectors.get(path, len(owners), build)

    def _query_path(self, query: str) -> Path:
        key = hashlib.sha256((self.instruction + query).encode()).hexdigest()[:24]
        return self._folder / "questions" / f"{key}.npy"

    def _query(self, query: str) -> np.ndarray:
        path = self._query_path(query)
        found = vectors.get(path, 1, lambda: self.embedder.encode([self.instruction + query]))
        return np.asarray(found[0], dtype=np.float32)


def _pieces(text: str, limit: int) -> list[str]:
    """Consecutive pieces of at most `limit` characters, ended at a space where there is one."""
    out, start = [], 0
    while len(text) - start > limit:
        stop = text.rfind(" ", start + limit // 2, start + limit)
        stop = start + limit if stop < 0 else stop
        out.append(text[start:stop])
        start = stop
    return [*out, text[start:]]
