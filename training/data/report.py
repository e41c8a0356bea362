"""Statistics of a data folder: counts by stage, gold before and after refinement, lengths, positions, length
cue."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.storage import write_atomic

from .store import Manifest, read

_BINS = 10


def positions(places: list[float]) -> dict[str, Any]:
    """Counts of relative gold positions in ten bins, and the p-value of the chi-square test against
    uniform."""
    from scipy.stats import chisquare

    counts = np.histogram(places, bins=_BINS, range=(0.0, 1.0))[0]
    p = float(chisquare(counts).pvalue) if counts.sum() else float("nan")
    return {"bins": counts.tolist(), "p_uniform": round(p, 4)}


def cue(gold: np.ndarray, rest: np.ndarray) -> float:
    """Probability that a gold passage is longer than another (0.5: length tells nothing)."""
    from scipy.stats import rankdata

    if not len(gold) or not len(rest):
        return float("nan")
    ranks = rankdata(np.concatenate([gold, rest]))[: len(gold)].sum()
    return round(float((ranks - len(gold) * (len(gold) + 1) / 2) / (len(gold) * len(rest))), 3)


def statistics(folder: Path) -> dict[str, Any]:
    """Everything the report shows, from train.parquet and dev.parquet."""
    before: Counter[int] = Counter()
    after: Counter[int] = Counter()
    domains: Counter[str] = Counter()
    r = random.Random(0)
    tokens, sizes, places, dropped = [], [], [], []
    gold_words: list[int] = []
    rest_words: list[int] = []
    for name in ("train", "dev"):
        for row in read(folder / f"{name}.parquet"):
            n, gold = len(row["passages"]), set(row["gold_ids"])
            before[len(row["original_ids"])] += 1
            after[len(gold)] += 1
            domains[f"{row['dataset']}/{row['domain']}"] += 1
            sizes.append(n)
            dropped.append(row["n_dropped"])
            if row["n_tokens"]:
                tokens.append(row["n_tokens"])
            # A random spot within the passage's own slot: uniform order then gives uniform places at any n.
            places += [(i + r.random()) / n for i in sorted(gold)]
            for i, text in enumerate(row["passages"]):
                (gold_words if i in gold else rest_words).append(len(text.split()))
    return {
        "rows": len(sizes),
        "data sets": dict(domains),
        "gold a row before refinement": _spread(before),
        "gold a row after refinement": _spread(after),
        "passages a row": _summary(sizes),
        "negatives left out of the context": _summary(dropped),
        "tokens of the longest prompt": _summary(tokens),
        "gold positions": positions(places),
        "words of gold passages": _summary(gold_words),
        "words of other passages": _summary(rest_words),
        "P(gold longer than another passage)": cue(np.array(gold_words), np.array(rest_words)),
    }


def _spread(counts: Counter[int]) -> dict[str, Any]:
    total = sum(counts.values())
    mean = sum(k * v for k, v in counts.items()) / total if total else float("nan")
    return {"mean": round(mean, 2), "counts": {str(k): counts[k] for k in sorted(counts)}}


def _summary(values: list[int]) -> dict[str, float]:
    if not values:
        return {}
    q = np.percentile(values, [0, 5, 50, 95, 100])
    return dict(zip(("min", "p5", "median", "p95", "max"), (round(float(x), 1) for x in q), strict=True)) | {
        "mean": round(float(np.mean(values)), 1)
    }


def write_report(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Write report.json and report.md; returns the statistics."""
    found = statistics(folder)
    write_atomic(folder / "report.json", json.dumps(found, indent=1).encode())
    lines = [f"# Training data {manifest.hash()}", "", "| stage | seconds | counts |", "|---|---|---|"]
    for name, entry in manifest.stages.items():
        counts = ", ".join(f"{k} {v:,}" for k, v in entry["counts"].items())
        lines.append(f"| {name} | {entry.get('seconds', '')} | {counts} |")
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| {k} | {_shown(v)} |" for k, v in found.items()]
    write_atomic(folder / "report.md", "\n".join([*lines, ""]).encode())
    return found


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    return " ".join(str(v) for v in value) if isinstance(value, list) else f"{value:,}"
