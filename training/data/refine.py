"""Stage 5: hard negatives that may be evidence after all (paper, appendix A, first stage).

Modes: `containment` (default, calibrated: docs/training_data.md), `paper` (any of Jaccard, character F1,
n-gram),
`paper_code` (the released rapidfuzz mix).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import dedupe, similarity
from .config import Config
from .similarity import PAPER, SIGNALS, released_mix
from .store import Record, count, read, write

OUTPUT = "candidates.parquet"
COLUMNS = {"id": "str", "candidates": "ints", "scores": "floats"}


def scores(golds: Sequence[str], negatives: Sequence[str], mode: str) -> np.ndarray:
    """Best similarity of each negative to any gold passage, float64 (negatives,)."""
    if not negatives:
        return np.zeros(0)
    if mode == "paper_code":
        return np.array([max(released_mix(g, n) for g in golds) for n in negatives])
    table = similarity.signals(golds, negatives)
    names = list(SIGNALS)
    chosen = PAPER if mode == "paper" else ("containment",)
    return table[[names.index(name) for name in chosen]].max(axis=(0, 1))


def promoted(values: np.ndarray, threshold: float, most: int) -> list[int]:
    """Positions at or above the threshold, best first (ties in rank order), at most `most` (0: all)."""
    order = np.argsort(-values, kind="stable")
    chosen = [int(i) for i in order if values[i] >= threshold]
    return chosen[:most] if most else chosen


def run(cfg: Config, folder: Path) -> dict[str, Any]:
    """Write candidates.parquet; positions refer to `negatives` of pool.parquet."""
    counts: Counter[str] = Counter()

    def rows() -> Iterator[Record]:
        for row in read(folder / dedupe.OUTPUT, ["id", "gold_texts", "negatives"], batch=64):
            values = scores(row["gold_texts"], row["negatives"], cfg.fuzzy)
            chosen = promoted(values, cfg.threshold, cfg.promote)
            counts["pairs"] += len(row["gold_texts"]) * len(row["negatives"])
            counts["candidates"] += len(chosen)
            counts["rows with candidates"] += bool(chosen)
            yield {
                "id": row["id"],
                "candidates": chosen,
                "scores": [round(float(values[i]), 6) for i in chosen],
            }

    counts["rows"] = write(
        folder / OUTPUT, rows(), COLUMNS, about="refine", total=count(folder / dedupe.OUTPUT)
    )
    return dict(counts)
