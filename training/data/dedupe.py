"""Stage 4: what the retriever found, without repeats of the gold passages and of itself.

Wikipedia holds most gold passages once more (another dump, another cut): kept, they would be evidence
labelled as distractors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import read as questions
from . import retrieve, similarity
from .config import Config
from .corpus import Texts
from .similarity import squeeze
from .store import Record, count, read, write

OUTPUT = "pool.parquet"
COLUMNS = {**questions.COLUMNS, "negatives": "strs", "titles": "strs", "pids": "ints"}


def run(cfg: Config, folder: Path) -> dict[str, Any]:
    """Write pool.parquet: every question with its ranked negatives as text."""
    texts, counts = Texts(folder), Counter[str]()

    def rows() -> Iterator[Record]:
        pairs = zip(read(folder / questions.OUTPUT), read(folder / retrieve.OUTPUT), strict=True)
        for row, hits in pairs:
            found = texts.many(hits["pids"])
            keep = distinct(found, row["gold_texts"], cfg.duplicate, counts)
            pids = [hits["pids"][i] for i in keep]
            yield row | {"negatives": [found[i] for i in keep], "titles": texts.titles(pids), "pids": pids}

    total = count(folder / questions.OUTPUT)
    counts["rows"] = write(folder / OUTPUT, rows(), COLUMNS, batch=64, about="dedupe", total=total)
    return dict(counts)


def distinct(found: list[str], golds: list[str], threshold: float, counts: Counter[str]) -> list[int]:
    """Positions of hits that repeat neither a gold passage (containment) nor an earlier hit (case and white
    space aside)."""
    overlap = similarity.signal("containment", golds, found).max(axis=0) if threshold and found else None
    seen = {squeeze(g) for g in golds}
    keep: list[int] = []
    for i, text in enumerate(found):
        counts["hits"] += 1
        if overlap is not None and overlap[i] >= threshold:
            counts["dropped: repeats gold"] += 1
        elif threshold and (key := squeeze(text)) in seen:
            counts["dropped: repeats a hit"] += 1
        else:
            if threshold:
                seen.add(key)
            keep.append(i)
    return keep
