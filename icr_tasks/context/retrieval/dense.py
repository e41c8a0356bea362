"""Cosine similarity of embeddings. Vectors of chunks and questions are kept on disk, so a prepared run loads
no embedder."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...storage import cache_root
from ..pool import Group, Pool
from .base import Retriever
from .embedder import Embedder

# ---- vectors -------------------------------------------------------------------------------------
# Vectors on disk: float16, memory-mapped, written atomically, checked when opened, rebuilt when damaged.

log = logging.getLogger("icr_tasks")
_TRAILER = 16
_CHECKED: set[tuple[str, int]] = set()


def folder(embedder: str) -> Path:
    """Where an embedder's vectors lie; `embedder` is its name and revision made into a file name."""
    return cache_root() / "vectors" / embedder


def get(path: Path, rows: int, build: Callable[[], np.ndarray]) -> np.ndarray:
    """float16 array [rows, dimensions] of `path`, made by `build` when absent or damaged (which is logged).

    Two processes may do this at once: each writes a complete file and renames it into place. A disk that is
    full costs the cache, not the run.
    """
    found = _open(path, rows)
    if found is not None:
        return found
    made = np.ascontiguousarray(build(), dtype=np.float16)
    if made.ndim != 2 or len(made) != rows:
        raise ValueError(f"embedder returned shape {made.shape} for {rows} texts")
    _write(path, made)
    return made


def has(path: Path, rows: int) -> bool:
    """Whether `get` would find the vectors."""
    return path.is_file() and _open(path, rows) is not None


def _open(path: Path, rows: int) -> np.ndarray | None:
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    identity = (str(path), stat.st_mtime_ns)
    try:
        if identity not in _CHECKED:
            raw = path.read_bytes()
            if _sum(raw[:-_TRAILER]) != raw[-_TRAILER:]:
                raise ValueError("checksum differs")
        array = np.load(path, mmap_mode="r")
        if array.ndim != 2 or len(array) != rows or array.dtype != np.float16:
            raise ValueError(f"{array.dtype} {array.shape} instead of {rows} rows of float16")
    except (OSError, ValueError, EOFError) as error:
        log.warning("%s is damaged (%s); embedding that text again", path, error)
        return None
    _CHECKED.add(identity)
    return array


def _write(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    raw = buffer.getvalue()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(raw + _sum(raw))
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        log.warning("vectors not kept on disk: %s", error)


def _sum(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=_TRAILER).digest()


log = logging.getLogger("icr_tasks")


class Dense(Retriever):
    """`params`: embedder, revision, instruction. A chunk longer than the embedder reads is embedded in
    pieces."""

    def __init__(self, params: dict[str, Any], engine: dict[str, Any] | None = None) -> None:
        super().__init__(params, engine)
        self.embedder = Embedder(str(params["embedder"]), str(params.get("revision") or ""), self.engine)
        self._folder: Path = folder(self.embedder.slug)

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
        missing = [q for q in dict.fromkeys(queries) if not has(self._query_path(q), 1)]
        for start in range(0, len(missing), 256):
            batch = missing[start : start + 256]
            for query, row in zip(
                batch, self.embedder.encode([self.instruction + q for q in batch]), strict=True
            ):
                get(self._query_path(query), 1, lambda row=row: row[None])

    def describe(self) -> dict[str, Any]:
        """Name, pinned revision, and the instruction as it was put before the question."""
        return {
            "embedder": self.embedder.name,
            "revision": self.embedder.revision,
            "instruction": self.instruction,
        }

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

        return owners, get(path, len(owners), build)

    def _query_path(self, query: str) -> Path:
        key = hashlib.sha256((self.instruction + query).encode()).hexdigest()[:24]
        return self._folder / "questions" / f"{key}.npy"

    def _query(self, query: str) -> np.ndarray:
        path = self._query_path(query)
        found = get(path, 1, lambda: self.embedder.encode([self.instruction + query]))
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
