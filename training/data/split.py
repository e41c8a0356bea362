"""Last stage: 95/5 split by question into train.parquet and dev.parquet; rows no reward could use are refused."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError
from icr_tasks.metrics.normalize import normalize

from . import pack
from .config import Config
from .store import ROW, Record, read, write

OUTPUTS = ("train.parquet", "dev.parquet")


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


def _key(question: str, seed: int) -> tuple[str, str]:
    """Equal for equal questions, so that a repeated question never stands on both sides."""
    text = normalize(question)
    return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest(), text


def split(source: Path, folder: Path, *, seed: int, dev: float = 0.05) -> dict[str, Any]:
    """Write both files in the source's order; returns counts by outcome. IcrError when nothing is left."""
    keys = sorted({_key(row["question"], seed) for row in read(source, ["question"])})
    held_out = {text for _, text in keys[: round(len(keys) * dev)]}
    counts: Counter[str] = Counter()
    seen: set[str] = set()

    def part(is_dev: bool) -> Iterator[Record]:
        for row in read(source):
            if (normalize(row["question"]) in held_out) != is_dev:
                continue
            why = "duplicate id" if row["id"] in seen else problem(row)
            seen.add(row["id"])
            if why:
                counts[f"dropped: {why}"] += 1
            else:
                yield row

    for name, is_dev in zip(OUTPUTS, (False, True), strict=True):
        counts[name.removesuffix(".parquet")] = write(folder / name, part(is_dev), ROW, batch=64)
    if not counts["train"]:
        raise IcrError(f"no row can be trained on: {dict(counts)}")
    return dict(counts)


def run(cfg: Config, folder: Path) -> dict[str, Any]:
    """Split packed.parquet."""
    return split(folder / pack.OUTPUT, folder, seed=cfg.seed, dev=cfg.dev)
