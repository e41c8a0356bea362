"""Shards: the items of a study divided among processes that never talk to each other.

    icr sweep study.yaml --shard 3/8       # this process answers its share of the items of every cell
    icr sweep study.yaml --merge           # scores what all shards answered; the last shard does it itself

Every process computes the same division from the study file alone. Items that read the same document stay in
one shard, so that its prefix is computed once. Each shard writes files of its own, so a shared folder needs no
lock; shards without one are joined by `--merge FOLDER ...`.

<out>/shards/3of8.json                 what the shard was made with: study, plan, versions
<out>/shards/3of8/<cell>.json          the requests of a cell that this shard asked
<out>/answers/<store>.3of8.jsonl       its answers
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from .. import __version__
from ..benchmarks.base import Item
from ..errors import IcrError
from ..schema import fingerprint
from ..storage import write_atomic
from .cells import Cell

SCHEMA = 1
_RULE = 1  # of `divide`: another rule is another plan
_MOST = 10_000  # shards: above the number of machines anybody has, below what a slip of the keyboard asks for
SHOWN = 8  # shards that a line names before it counts
_SPEC = re.compile(r"(\d+)/(\d+)")
_NAME = re.compile(r"(\d+)of(\d+)")


@dataclass(frozen=True, order=True)
class Shard:
    """Number `index` (from 1) of `of`."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`3/8`. Raises IcrError."""
        found = _SPEC.fullmatch(text.strip())
        index, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= index <= of <= _MOST:
            raise IcrError(
                f"--shard {text}: write i/n with i from 1 to n and n at most {_MOST:,}, as 3/8 (an array that counts from 0: "
                '"$((INDEX + 1))/8")'
            )
        return cls(index, of)

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def name(self) -> str:
        """As part of a file name."""
        return f"{self.index}of{self.of}"


# ---- division ------------------------------------------------------------------------------------

Place = tuple[str, str]  # task and item id


def document_of(item: Item) -> str:
    """What the items of one document share: its files, else the cluster (the book; in HELMET the question)."""
    files = [str(d.get("file", d)) if isinstance(d, Mapping) else str(d) for d in _documents(item)]
    return "\n".join(files) if files else item.cluster


def _documents(item: Item) -> Sequence[Any]:
    return item.fields.get("documents") or ()


def divide(items: Iterable[tuple[Place, str]], n: int) -> dict[Place, int]:
    """Shard (1 to n) of each item, from (place, document): the same in every process, whatever the order.

    Documents stay whole, unless one has more items than an even share; the shares differ by less than the
    largest piece.
    """
    documents: dict[str, list[Place]] = {}
    for place, document in items:
        documents.setdefault(document, []).append(place)
    share = max(1, -(-sum(map(len, documents.values())) // n))
    pieces = []
    for document, places in documents.items():
        places.sort()
        for start in range(0, len(places), share):
            mark = hashlib.sha256(f"{document}\0{start}".encode("utf-8", "surrogatepass")).hexdigest()
            pieces.append((places[start : start + share], mark))
    loads, found = [0] * n, {}
    for piece, mark in sorted(pieces, key=lambda p: (-len(p[0]), p[1])):
        first = int(mark[:8], 16) % n  # small studies do not all go to the first shard
        at = min(range(n), key=lambda i: (loads[i], (i - first) % n))
        loads[at] += len(piece)
        found.update(dict.fromkeys(piece, at + 1))
    return found


# ---- what a folder knows of its shards -----------------------------------------------------------


def plan_of(matrix: Iterable[Cell], of: int) -> str:
    """Names a division: the study's cells, and in how many shards."""
    return fingerprint({"cells": sorted(c.fingerprint for c in matrix), "of": of, "rule": _RULE})


class Ledger:
    """The shards of one study folder."""

    def __init__(self, out: Path) -> None:
        self.root = out / "shards"

    def heads(self) -> dict[Shard, dict[str, Any]]:
        """What each shard that was ever started here was made with."""
        found = {}
        for path in sorted(self.root.glob("*.json")):
            name = _NAME.fullmatch(path.stem)
            body = _read(path)
            if name and body:
                found[Shard(int(name[1]), int(name[2]))] = body
        return found

    def head(self, study: Path, shard: Shard, matrix: Sequence[Cell], versions: Mapping[str, str]) -> None:
        """Write what this shard is made with."""
        self._write(self.root / f"{shard.name}.json", head_of(study, shard, matrix, versions))

    def note(self, shard: Shard, cell: Cell, **facts: Any) -> None:
        """Write which requests of a cell this shard asked."""
        body = {"schema": SCHEMA, "where": list(cell.where), **facts}
        self._write(self.root / shard.name / f"{cell.fingerprint}.json", body)

    def noted(self, fingerprint: str) -> dict[Shard, dict[str, Any]]:
        """What each shard noted of a cell."""
        found = {}
        for path in sorted(self.root.glob(f"*/{fingerprint}.json")):
            name = _NAME.fullmatch(path.parent.name)
            body = _read(path)
            if name and body:
                found[Shard(int(name[1]), int(name[2]))] = body
        return found

    def notes(self) -> Iterator[dict[str, Any]]:
        """What all shards noted of all cells."""
        return filter(None, (_read(path) for path in sorted(self.root.glob("*/*.json"))))

    @staticmethod
    def _write(path: Path, body: Mapping[str, Any]) -> None:
        try:
            write_atomic(path, orjson.dumps(body, option=orjson.OPT_INDENT_2))
        except OSError as error:
            raise IcrError(f"cannot write {path} ({error.strerror}); finished answers are kept") from error


def head_of(study: Path, shard: Shard, matrix: Sequence[Cell], versions: Mapping[str, str]) -> dict[str, Any]:
    """What a shard is made with."""
    return {
        "schema": SCHEMA,
        "shard": str(shard),
        "study": study.stem,
        "plan": plan_of(matrix, shard.of),
        "versions": {"icr_tasks": __version__, **versions},
        "cells": {c.fingerprint: c.name for c in matrix},
    }


def refusal(mine: Mapping[str, Any], other: Mapping[str, Any], where: str) -> str | None:
    """Why two shards cannot be parts of one run, in a sentence that names the fix; None when they can."""
    name = f"shard {other['shard']} in {where}"
    known, theirs = mine["cells"], other["cells"]
    fix = f"remove {where}/shards (the answers are kept and used again) and start every shard anew"
    if known.keys() != theirs.keys() and not set(known.values()) & set(theirs.values()):
        return (
            f"{name} is of another study ({other['study']}.yaml); give this one a folder of its own with -o"
        )
    if known.keys() != theirs.keys():
        first, *more = sorted({known.get(one) or theirs[one] for one in known.keys() ^ theirs.keys()})
        rest = f" and {len(more)} more" if more else ""
        return f"{name} was made with an older study file (what differs: {first}{rest}); {fix}"
    if mine["shard"].partition("/")[2] != other["shard"].partition("/")[2]:
        return (
            f"{name} divides the study otherwise than {mine['shard']}, so their items overlap; take its number of "
            f"shards, or {fix}"
        )
    if mine["plan"] != other["plan"]:
        return f"{name} was divided by another rule; {fix}"
    if mine["versions"] != other["versions"]:
        wrong = ", ".join(
            f"{k} {other['versions'].get(k)} there and {mine['versions'].get(k)} here"
            for k in sorted({*mine["versions"], *other["versions"]})
            if mine["versions"].get(k) != other["versions"].get(k)
        )
        kept = "answers are kept, those of other engine versions asked anew"
        return (
            f"{name} ran under other versions ({wrong}): answers of two are no one run; run all under one, or remove "
            f"{where}/shards ({kept}) and start every shard anew"
        )
    return None


@dataclass(frozen=True)
class Divided:
    """The division that a folder's shards follow."""

    ledger: Ledger
    n: int

    @classmethod
    def of(cls, out: Path, matrix: Sequence[Cell]) -> Divided | None:
        """None where the study was never divided in this folder."""
        ledger = Ledger(out)
        for shard, head in ledger.heads().items():
            if head["plan"] == plan_of(matrix, shard.of):
                return cls(ledger, shard.of)
        return None

    def asked(self, fingerprint: str) -> tuple[dict[str, Any] | None, list[Shard]]:
        """(store and keys of a cell's requests so far, or None; the shards that have not asked theirs)."""
        noted = self.ledger.noted(fingerprint)
        keys = [key for body in noted.values() for key in body["keys"]]
        store = next((body["store"] for body in noted.values()), None)
        waits = [shard for shard in _all(self.n) if shard not in noted]
        return ({"store": store, "keys": keys} if store else None), waits


def missing(ledger: Ledger, cells: Iterable[Cell], of: int) -> dict[Shard, list[Cell]]:
    """Shards that have not asked all their requests of these cells, with those cells."""
    found: dict[Shard, list[Cell]] = {}
    for cell in cells:
        noted = ledger.noted(cell.fingerprint)
        for shard in _all(of):
            if shard not in noted:
                found.setdefault(shard, []).append(cell)
    return dict(sorted(found.items()))


def listed(shards: Sequence[Shard]) -> str:
    """Their names, the first few where there are many."""
    more = f" and {len(shards) - SHOWN} more" if len(shards) > SHOWN else ""
    return ", ".join(map(str, shards[:SHOWN])) + more


def _all(of: int) -> Iterator[Shard]:
    return (Shard(i + 1, of) for i in range(of))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None
