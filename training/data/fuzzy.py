"""The signals of `similarity` for all gold x negative pairs of a row in one compiled pass.

Each passage is read once: characters are counted, words and trigrams go through small hash tables that remember
which gold passages hold them. Words are told apart by a 64-bit hash, characters and their trigrams exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from icr_tasks.errors import IcrError

from .similarity import SIGNALS

_SPACE, _WORD, _POINTS, _MOST = 1, 2, 0x110000, 63


@lru_cache(maxsize=1)
def _classes() -> np.ndarray:
    """1 for white space, 2 for word characters, 0 for the rest, by code point, as str and re see them."""
    space = [_SPACE if chr(i).isspace() else _WORD if chr(i).isalnum() or i == 95 else 0 for i in range(_POINTS)]
    return np.array(space, dtype=np.uint8)


@lru_cache(maxsize=1)
def _kernel() -> Any:
    try:
        from . import kernel
    except ImportError as error:
        raise IcrError("refinement is compiled with numba: pip install icr-tasks[train]") from error
    return kernel.signals


def signals(golds: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """float64 (len(SIGNALS), golds, others), in the order of `similarity.SIGNALS`."""
    out = np.zeros((len(SIGNALS), len(golds), len(others)))
    if not len(others):
        return out
    for start in range(0, len(golds), _MOST):
        part = golds[start : start + _MOST]
        lowered = [text.lower() for text in (*part, *others)]
        ends = np.cumsum([0, *map(len, lowered)])
        codes = np.frombuffer("".join(lowered).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        out[:, start : start + len(part)] = _kernel()(codes, ends, len(part), _classes())
    return out


def signal(name: str, golds: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """One signal, (golds, others)."""
    return signals(golds, others)[list(SIGNALS).index(name)]
