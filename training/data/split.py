"""Last stage: mix, split 95/5 into train.parquet and dev.parquet, refuse rows no reward could use."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path

from icr_tasks.errors import IcrError
from icr_tasks.metrics.normalize import normalize

from .store import ROW, Record, write


def problem(row: Record) -> str | None:
    """Why a row cannot be trained on, or None."""
    n = len(row["passages"])
    if not row["answers"] or not any(a.strip() for a in row["answers"]):
        return "no answer"
    if not row["gold_ids"]:
        return "no gold"
    if any(not 0 <= i < n for i in [*row["gold_ids"], *row["original_ids"]]):
        return "gold id outside the context"
    if [row["passages"][i] for i in row["gold_ids"]] != list(row["gold_docs"]):
        return "gold not in the context"
    return None


def bucket(question: str, seed: int) -> float:
    """0-1, the same for equal questions: repeated questions never straddle the split."""
    digest = hashlib.sha256(f"{seed}/{normalize(question)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split(
    rows: Iterable[Record], folder: Path, *, seed: int, dev: float = 0.05, shuffle: bool = True
) -> dict[str, int]:
    """Write both files; returns counts by outcome. `shuffle` mixes data sets (paper_code keeps them one after another).

    Raises IcrError when nothing is left or an id occurs twice.
    """
    if not 0 <= dev < 1:
        raise IcrError(f"--dev {dev} is not a share below 1")
    counts = {"rows": 0, "train": 0, "dev": 0}
    kept: list[Record] = []
    seen: set[str] = set()
    for row in rows:
        counts["rows"] += 1
        why = "duplicate id" if row["id"] in seen else problem(row)
        seen.add(row["id"])
        if why:
            counts[f"dropped: {why}"] = counts.get(f"dropped: {why}", 0) + 1
        else:
            kept.append(row)
    if not kept:
        raise IcrError(f"no row can be trained on: {counts}")
    # The share is exact: the rows with the smallest buckets go to dev, equal questions together.
    order = sorted({(bucket(row["question"], seed), normalize(row["question"])) for row in kept})
    held_out = {question for _, question in order[: round(len(order) * dev)]}
    if shuffle:
        random.Random(seed).shuffle(kept)
    for name in ("train", "dev"):
        part = [r for r in kept if (normalize(r["question"]) in held_out) == (name == "dev")]
        counts[name] = write(folder / f"{name}.parquet", part, ROW)
    return counts
