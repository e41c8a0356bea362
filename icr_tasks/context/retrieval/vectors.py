"""Vectors on disk: float16, memory-mapped, written atomically, checked when opened, made again when damaged.

A file is named by the texts that were embedded (`name_of`), and lies in a folder named by the embedder and
what pins it: whatever else chose those texts (tokenizer, chunk size, benchmark) cannot matter.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...errors import IcrError
from ...storage import cache_root, write_atomic

log = logging.getLogger("icr_tasks")
LAYOUT = (
    "texts"  # folder of this layout below vectors/; the layout before it was named by document and chunking
)
_TRAILER = 16
_CHECKED: set[tuple[str, int]] = set()


def folder(embedder: str) -> Path:
    """Where an embedder's vectors lie; `embedder` is its name and revision made into a file name."""
    root = cache_root() / "vectors"
    _void(str(root))
    return root / LAYOUT / embedder


@lru_cache(maxsize=8)
def _void(root: str) -> None:
    """Say once that vectors of the earlier layout are not used."""
    with contextlib.suppress(OSError):
        if any(path.name != LAYOUT for path in Path(root).iterdir()):
            log.warning(
                "vectors directly below %s are of an earlier version, which named them by chunking and not "
                "by text; "
                "they are not used and are made again below %s/. Delete the others to free the space",
                root,
                LAYOUT,
            )


def name_of(texts: Iterable[str]) -> str:
    """Content hash of a list of texts: 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def get(path: Path, rows: int, build: Callable[[], np.ndarray]) -> np.ndarray:
    """float16 array [rows, dimensions] of `path`, made by `build` when absent or damaged (which is logged).

    Two processes may do this at once: each writes a complete file and renames it into place. A disk that is
    full costs the cache, not the run. IcrError when `build` gives another number of rows.
    """
    found = read(path, rows)
    if found is not None:
        return found
    made = np.ascontiguousarray(build(), dtype=np.float16)
    if made.ndim != 2 or len(made) != rows:
        raise IcrError(f"the embedder returned an array of shape {made.shape} for {rows} texts")
    write(path, made)
    return made


def has(path: Path, rows: int) -> bool:
    """Whether `get` would find the vectors."""
    return path.is_file() and read(path, rows) is not None


def read(path: Path, rows: int) -> np.ndarray | None:
    """The stored array; None when absent or damaged (which is logged)."""
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


def write(path: Path, array: np.ndarray) -> None:
    """Keep an array with its checksum; a disk that is full is said and costs nothing else."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    raw = buffer.getvalue()
    try:
        write_atomic(path, raw + _sum(raw))
    except OSError as error:
        log.warning("vectors not kept on disk: %s", error)


def _sum(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=_TRAILER).digest()
