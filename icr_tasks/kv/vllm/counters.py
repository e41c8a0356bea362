"""What crosses process borders in a shared file: counts, in all and by request (workers add, the engine's
owner reads), and under kv=task the setting to act on (the owner writes, workers read).

The file is sparse: of its 50 MB only the pages that are written exist.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

import numpy as np

VARIABLE = "ICR_KV_COUNTERS"
CONFIG = "icr_kv"  # the key in vLLM's additional_config that names an engine's setting and its file
# A step is one generated token that went through the model; the others are sums over steps and layers.
NAMES = (
    "steps",
    "sparse_steps",
    "fallback_steps",
    "bytes_read",
    "bytes_full",
    "tokens_read",
    "tokens_full",
    "index_bytes",
    "build_seconds",
)
_STEPS = 3  # the first names: every rank takes the same steps, so they are not summed over ranks
_RANKS = 64
_SLOTS = 8192  # requests whose counts are kept a rank: more than are ever in flight
_TEXT = 512  # bytes of the setting
_AT_TEXT = _RANKS * len(NAMES) * 8
_AT_KEYS = _AT_TEXT + _TEXT
_AT_ROWS = _AT_KEYS + _RANKS * _SLOTS * 8
_SIZE = _AT_ROWS + _RANKS * _SLOTS * len(NAMES) * 8
_OURS = re.compile(r"icr-\d+-\d+")  # icr-vllm's names; vLLM adds characters of its own


def new() -> Path:
    """A fresh file, all zeros."""
    handle, name = tempfile.mkstemp(prefix="icr-kv-", suffix=".counters")
    os.truncate(handle, _SIZE)
    os.close(handle)
    return Path(name)


def path() -> Path:
    """The file of this process's environment; made on first use and named there, so that child processes use
    the same one."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = str(new())
    return Path(os.environ[VARIABLE])


def key(request: str) -> int:
    """64 bits for a request's name, without what vLLM appended to it."""
    found = _OURS.match(request)
    name = found[0] if found else request
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") | 1  # 0: no entry


class Counters:
    """A worker's part of the file: its totals, and a ring of requests."""

    def __init__(self, file: str | Path, rank: int = 0) -> None:
        rank %= _RANKS
        self._total = _table(file, 0, (_RANKS, len(NAMES)))[rank]
        self._keys = np.memmap(file, np.uint64, "r+", _AT_KEYS, (_RANKS, _SLOTS))[rank]
        self._rows = _table(file, _AT_ROWS, (_RANKS, _SLOTS, len(NAMES)))[rank]
        self._slots: dict[int, int] = {}
        self._next = 0

    def add(self, request: str | None = None, **counts: float) -> None:
        """Add to named counts, in all and of this request."""
        rows = [self._total] if request is None else [self._total, self._rows[self._slot(key(request))]]
        for name, value in counts.items():
            for row in rows:
                row[NAMES.index(name)] += value

    def _slot(self, number: int) -> int:
        if number not in self._slots:
            slot, self._next = self._next, (self._next + 1) % _SLOTS
            self._slots.pop(int(self._keys[slot]), None)
            self._rows[slot] = 0
            self._keys[slot] = number
            self._slots[number] = slot
        return self._slots[number]


def totals(file: str | Path | None = None) -> dict[str, float]:
    """Counts since the start; all zeros when nothing ran. Without `file` the one the environment names."""
    if file is None and VARIABLE not in os.environ:
        return dict.fromkeys(NAMES, 0.0)
    return _summed(_table(file or path(), 0, (_RANKS, len(NAMES))))


def of(file: str | Path, request: str) -> dict[str, float]:
    """Counts of one request; all zeros when no worker counted a step of it."""
    keys = np.memmap(file, np.uint64, "r", _AT_KEYS, (_RANKS, _SLOTS))
    at = np.nonzero(keys == np.uint64(key(request)))
    return _summed(np.memmap(file, np.float64, "r", _AT_ROWS, (_RANKS, _SLOTS, len(NAMES)))[at])


def _summed(rows: np.ndarray) -> dict[str, float]:
    """One row a rank -> counts: the largest of steps, sums of the rest."""
    if not len(rows):
        return dict.fromkeys(NAMES, 0.0)
    found = [*rows[:, :_STEPS].max(0).tolist(), *rows[:, _STEPS:].sum(0).tolist()]
    return dict(zip(NAMES, found, strict=True))


def tell(file: str | Path, setting: str) -> None:
    """Let the workers act on this setting ("" = full attention)."""
    np.memmap(file, np.uint8, "r+", _AT_TEXT, (_TEXT,))[:] = np.frombuffer(
        setting.encode().ljust(_TEXT, b"\0"), np.uint8
    )


def told(file: str | Path) -> str:
    """The setting of the last `tell`, or ""."""
    return bytes(np.memmap(file, np.uint8, "r", _AT_TEXT, (_TEXT,))).rstrip(b"\0").decode()


def _table(file: str | Path, at: int, shape: tuple[int, ...]) -> np.memmap:
    return np.memmap(file, np.float64, "r+", at, shape)
