"""Counts that cross process borders: the engine's workers add to a small shared file, the harness reads it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

VARIABLE = "ICR_KV_COUNTERS"
NAMES = ("steps", "sparse_steps", "fallback_steps", "bytes_read", "bytes_full", "tokens_read", "tokens_full")
_RANKS = 64


def path() -> Path:
    """The shared file; made on first use and named in the environment, so that child processes use the same one."""
    if VARIABLE not in os.environ:
        handle, name = tempfile.mkstemp(prefix="icr-kv-", suffix=".counters")
        os.close(handle)
        np.zeros((_RANKS, len(NAMES))).tofile(name)
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
    table = np.fromfile(path(), np.float64).reshape(_RANKS, len(NAMES))
    return dict(zip(NAMES, table.sum(0).tolist(), strict=True))
