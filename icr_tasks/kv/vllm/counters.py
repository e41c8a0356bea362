"""What crosses process borders in a small shared file: counts (workers add, the harness reads), and under
kv=task the setting to act on (the harness writes, workers read)."""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

VARIABLE = "ICR_KV_COUNTERS"
NAMES = ("steps", "sparse_steps", "fallback_steps", "bytes_read", "bytes_full", "tokens_read", "tokens_full")
_RANKS = 64
_COUNTS = _RANKS * len(NAMES)
_TEXT = 512  # bytes of the setting, after the counts


def path() -> Path:
    """The shared file; made on first use and named in the environment, so that child processes use the same
    one."""
    if VARIABLE not in os.environ:
        handle, name = tempfile.mkstemp(prefix="icr-kv-", suffix=".counters")
        os.close(handle)
        Path(name).write_bytes(bytes(_COUNTS * 8 + _TEXT))
        os.environ[VARIABLE] = name
    return Path(os.environ[VARIABLE])


class Counters:
    """One row a tensor-parallel rank; a layer's decode step is one step."""

    def __init__(self, rank: int = 0) -> None:
        self._row = np.memmap(path(), np.float64, "r+", shape=(_RANKS, len(NAMES)))[rank % _RANKS]

    def add(self, **counts: float) -> None:
        """Add to named counts."""
        for name, value in counts.items():
            self._row[NAMES.index(name)] += value


def totals() -> dict[str, float]:
    """Sum over ranks since the start of the run; all zeros when nothing ran."""
    if VARIABLE not in os.environ:
        return dict.fromkeys(NAMES, 0.0)
    table = np.fromfile(path(), np.float64, _COUNTS).reshape(_RANKS, len(NAMES))
    return dict(zip(NAMES, table.sum(0).tolist(), strict=True))


def tell(setting: str) -> None:
    """Let the workers act on this setting ("" = full attention) and count from zero."""
    np.memmap(path(), np.float64, "r+", shape=(_COUNTS,))[:] = 0
    _text(str(path()))[:] = np.frombuffer(setting.encode().ljust(_TEXT, b"\0"), np.uint8)


def told() -> str:
    """The setting of the last `tell`, or ""."""
    return bytes(_text(str(path()))).rstrip(b"\0").decode()


@lru_cache(maxsize=1)
def _text(name: str) -> np.memmap:
    return np.memmap(name, np.uint8, "r+", offset=_COUNTS * 8, shape=(_TEXT,))
