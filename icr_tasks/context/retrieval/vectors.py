"""Vectors on disk: float16, memory-mapped, written atomically, checked when opened, rebuilt when damaged.

A file is a .npy followed by 16 bytes of BLAKE2 over it, so that a truncated or altered file is never read as vectors.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...data.roots import cache_root

log = logging.getLogger("icr_tasks")
_TRAILER = 16
_CHECKED: set[tuple[str, int]] = set()


def folder(embedder: str) -> Path:
    """Where an embedder's vectors lie; `embedder` is its name and revision made into a file name."""
    return cache_root() / "vectors" / embedder


def get(path: Path, rows: int, build: Callable[[], np.ndarray]) -> np.ndarray:
    """float16 array [rows, dimensions] of `path`, made by `build` when absent or damaged (which is logged).

    Two processes may do this at once: each writes a complete file and renames it into place. A disk that is full
    costs the cache, not the run.
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
