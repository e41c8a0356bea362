"""Ledger rows (dicts) -> columns (arrays of shape (items,)), the hot loop of reading a results tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain
from sys import intern
from typing import Any

import numpy as np

_GONE = float("nan")
_NO_KEYS: dict[str, Any] = {}


def columns(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The array fields of TaskItems. Raises KeyError, TypeError or ValueError for rows that are not ledger rows."""
    scores = [row["score"] for row in rows]
    keys = [row.get("keys") or _NO_KEYS for row in rows]
    clusters = ["" if c is None else c for c in [row.get("cluster") for row in rows]]
    errors = [row.get("error") for row in rows]
    return {
        "item": _objects(map(intern, [row["item"] for row in rows])),
        "occ": np.array([row.get("occ", 0) for row in rows], np.int32),
        "cluster": _objects(map(intern, map(str, clusters))),
        "score": {m: _scores(scores, m) for m in map(intern, dict.fromkeys(chain.from_iterable(scores)))},
        "keys": {intern(k): _objects([row.get(k) for row in keys]) for k in dict.fromkeys(chain.from_iterable(keys))},
        "n_prompt_tokens": _numbers(rows, "n_prompt_tokens"),
        "n_out_tokens": _numbers(rows, "n_out_tokens"),
        "truncated": np.array([bool(row.get("truncated")) for row in rows], bool),
        "resp_hash": _hashes(rows, "resp_hash"),
        "prompt_hash": _hashes(rows, "prompt_hash"),
        "target_hash": _hashes(rows, "target_hash"),
        "errors": {i: str(error) for i, error in enumerate(errors) if error},
    }


def _scores(scores: Sequence[dict[str, Any]], metric: str) -> np.ndarray:
    return np.array([row.get(metric, _GONE) for row in scores], float)


def _objects(values: Iterable[Any]) -> np.ndarray:
    listed = list(values)
    out = np.empty(len(listed), object)
    out[:] = listed
    return out


def _numbers(rows: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    values = [row.get(key) for row in rows]
    return np.array([_GONE if v is None else v for v in values] if None in values else values, float)


def _hashes(rows: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    values = [row.get(key) or "" for row in rows]
    if set(map(len, values)) == {16}:
        try:
            whole = bytes.fromhex("".join(values))
        except ValueError:
            whole = b""  # labels of another writer
        if len(whole) == 8 * len(values):  # fromhex skips blanks
            return np.frombuffer(whole, ">u8").astype(np.uint64)
    return np.array([_hash64(v) for v in values], np.uint64)


def _hash64(text: str | None) -> int:
    """The first 64 bits of a hexadecimal hash; other writers' labels are hashed. Absent: 0."""
    try:
        return int(text[:16], 16) if text else 0
    except ValueError:
        return int.from_bytes(blake2b(str(text).encode(), digest_size=8).digest())
