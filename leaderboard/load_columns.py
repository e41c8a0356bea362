"""Ledger rows (dicts) -> columns (arrays of shape (items,)), the hot loop of reading a results tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain
from operator import itemgetter
from sys import intern
from typing import Any

import numpy as np

_GONE = float("nan")
_NO_KEYS: dict[str, Any] = {}
_NEEDED = ("item", "score")
_SHOWN = (
    "item", "occ", "cluster", "score", "keys", "n_prompt_tokens", "n_out_tokens", "truncated", "target_hash", "error",
)  # fmt: skip
_COMPARED = ("resp_hash", "prompt_hash")


def columns(rows: Sequence[dict[str, Any]], shown: str | None = None) -> dict[str, Any]:
    """The array fields of TaskItems. Raises KeyError, TypeError or ValueError for rows that are not ledger rows.

    `shown` names the headline metric ("": the first there is) when only what a board shows is wanted: then other scores
    and keys are left out and the hashes of answers and prompts are 0, which takes half the time.
    """
    of = _fields(rows, _SHOWN if shown is not None else (*_SHOWN, *_COMPARED))
    scores, keys = of["score"], [k or _NO_KEYS for k in of["keys"]]
    metrics, names = dict.fromkeys(chain.from_iterable(scores)), dict.fromkeys(chain.from_iterable(keys))
    if shown is not None:
        metrics = {m: None for m in metrics if m == (shown or next(iter(metrics)))}
        names = {k: None for k in names if k == "depth"}
    none = np.zeros(len(rows), np.uint64)
    return {
        "item": _objects(map(intern, of["item"])),
        "occ": np.array([n or 0 for n in of["occ"]], np.int32),
        "cluster": _objects(["" if c is None else intern(str(c)) for c in of["cluster"]]),
        "score": {intern(m): _scores(scores, m) for m in metrics},
        "keys": {intern(k): _objects([row.get(k) for row in keys]) for k in names},
        "n_prompt_tokens": _numbers(of["n_prompt_tokens"]),
        "n_out_tokens": _numbers(of["n_out_tokens"]),
        "truncated": np.array(list(map(bool, of["truncated"])), bool),
        **{name: none if shown is not None else _hashes(of[name]) for name in _COMPARED},
        "target_hash": _hashes(of["target_hash"]),
        "errors": {i: str(error) for i, error in enumerate(of["error"]) if error},
    }


def _fields(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Field -> values; one call a row where every row has every field, as ours do."""
    try:
        found = list(zip(*map(itemgetter(*names), rows), strict=True))
        return dict(zip(names, found or [()] * len(names), strict=True))
    except KeyError:
        return {n: [row[n] if n in _NEEDED else row.get(n) for row in rows] for n in names}


def _scores(scores: Sequence[dict[str, Any]], metric: str) -> np.ndarray:
    return np.array([row.get(metric, _GONE) for row in scores], float)


def _objects(values: Iterable[Any]) -> np.ndarray:
    listed = list(values)
    out = np.empty(len(listed), object)
    out[:] = listed
    return out


def _numbers(values: Sequence[Any]) -> np.ndarray:
    return np.array([_GONE if v is None else v for v in values] if None in values else values, float)


def _hashes(labels: Sequence[Any]) -> np.ndarray:
    values = [label or "" for label in labels]
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
