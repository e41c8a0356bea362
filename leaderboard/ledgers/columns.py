"""Ledger rows (dicts) -> columns (arrays of shape (items,)): the hot loop of reading a results tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import chain
from operator import itemgetter
from sys import intern
from typing import Any

import numpy as np

_GONE = float("nan")
_NO_KEYS: dict[str, Any] = {}
_NO_GOLD = [0, 0]
_NEEDED = ("item", "score")
_SHOWN = (
    "item",
    "occ",
    "cluster",
    "score",
    "keys",
    "n_prompt_tokens",
    "n_out_tokens",
    "truncated",
    "target_hash",
    "error",
)
_COMPARED = ("resp_hash", "prompt_hash")
_SHOWN_KEYS = ("depth", "documents")


class Kept:
    """The columns of each task that were made last: where those of the next run are equal they are the same
    objects, which spares most of the time and memory of a board whose runs answer the same items."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[Any, Any]] = {}

    def __call__(self, task: str, name: str, values: Any, make: Callable[[Any], Any]) -> Any:
        last = self._last.get((task, name))
        if last is None or last[0] != values:
            last = self._last[task, name] = values, make(values)
        return last[1]


def columns(
    rows: Sequence[dict[str, Any]], shown: str | None = None, kept: Kept | None = None, task: str = ""
) -> dict[str, Any]:
    """The array fields of TaskItems. Raises KeyError, TypeError or ValueError for rows that are not ledger
    rows.

    `shown` names the headline metric ("": the first there is) when only what a board shows is wanted: then
    other scores and keys are left out, which takes half the time. With `kept` columns equal to those of the
    last run of this `task` are the same objects: nobody may write to them.
    """
    of = _fields(rows, (*_SHOWN, *_COMPARED))
    scores, keys = of["score"], of["keys"]
    keys = keys if all(keys) else [k or _NO_KEYS for k in keys]
    metrics: Iterable[str] = (shown,) if shown and scores and shown in scores[0] else _known(scores)
    names: Iterable[str] = _known(keys) if shown is None else [k for k in _SHOWN_KEYS if _any_has(keys, k)]
    if shown == "":
        metrics = list(metrics)[:1]
    elif shown is not None:
        metrics = [m for m in metrics if m == shown]

    def same(name: str, values: Any, make: Callable[[Any], Any]) -> Any:
        return make(values) if kept is None else kept(task, name, values, make)

    same("once", (of["item"], of["occ"]), _once)
    return {
        "item": same("item", of["item"], _names),
        "occ": same("occ", of["occ"], _counts),
        "cluster": same("cluster", of["cluster"], _clusters),
        "score": {intern(m): _scores(scores, m) for m in metrics},
        "keys": {intern(k): same(f"key {k}", [row.get(k) for row in keys], _objects) for k in names},
        "n_prompt_tokens": _numbers(of["n_prompt_tokens"]),
        "n_out_tokens": _numbers(of["n_out_tokens"]),
        "truncated": same("truncated", of["truncated"], _flags),
        **{name: _hashes(of[name]) for name in _COMPARED},
        "target_hash": same("target_hash", of["target_hash"], _hashes),
        "errors": {i: str(error) for i, error in enumerate(of["error"]) if error} if any(of["error"]) else {},
        "evidence": _evidence(rows),
    }


def _known(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Every name in these rows, in order."""
    return list(dict.fromkeys(chain.from_iterable(rows)))


def _any_has(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return any(name in row for row in rows)


def _once(places: tuple[Sequence[str], Sequence[Any]]) -> None:
    """Raises ValueError where two rows are one item: it would count twice."""
    seen: set[tuple[str, int]] = set()
    for place in zip(places[0], _counts(places[1]).tolist(), strict=True):
        if place in seen:
            raise ValueError(f"item {place[0]} twice")
        seen.add(place)


def _names(values: Iterable[str]) -> np.ndarray:
    return _objects(map(intern, values))


def _counts(values: Sequence[Any]) -> np.ndarray:
    return np.array([n or 0 for n in values], np.int32)


def _clusters(values: Sequence[Any]) -> np.ndarray:
    return _objects(["" if c is None else intern(str(c)) for c in values])


def _flags(values: Sequence[Any]) -> np.ndarray:
    return np.array(list(map(bool, values)), bool)


def _evidence(rows: Sequence[dict[str, Any]]) -> np.ndarray | None:
    """Share of the evidence that each prompt held, NaN where it is not known: of a retrieved prompt what
    retrieval recorded; of any other, and where a route went on to the whole context, the gold passages kept."""
    if any([row.get("retrieval") for row in rows]):
        return np.array([_GONE if (v := _share(row)) is None else v for row in rows], float)
    # gold passages alone, as of every setting that retrieves nothing: column by column
    kept = [row.get("gold_kept") or _NO_GOLD for row in rows]
    if kept.count(_NO_GOLD) == len(kept):
        return None
    if set(map(len, kept)) != {2}:
        raise ValueError("gold_kept is not [kept, known]")
    there, gold = _numbers(list(chain.from_iterable(kept))).reshape(-1, 2).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gold > 0, there / gold, _GONE)


def _share(row: dict[str, Any]) -> float | None:
    found, kept = row.get("retrieval") or {}, row.get("gold_kept")
    went_on = (row.get("route") or {}).get("went_on")
    if found and not went_on and not found.get("whole"):
        return found.get("recall")
    if kept and kept[1]:
        return kept[0] / kept[1]
    return None if found.get("recall") is None else 1.0  # the whole context, in which the answer stands


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
