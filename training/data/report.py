"""Statistics of a data folder: counts by stage, gold before and after refinement, lengths, positions, length
cue."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.metrics.answers import normalize
from icr_tasks.metrics.unspaced import spread
from icr_tasks.storage import write_atomic

from .corpus import size
from .store import Manifest, read

_BINS = 10
_LOOKED = 2000  # rows whose passages are searched for the answer


def positions(places: list[float]) -> dict[str, Any]:
    """Counts of relative gold positions in ten bins, and the p-value of the chi-square test against
    uniform."""
    from scipy.stats import chisquare

    counts = np.histogram(places, bins=_BINS, range=(0.0, 1.0))[0]
    p = float(chisquare(counts).pvalue) if counts.sum() else float("nan")
    return {"bins": counts.tolist(), "p_uniform": round(p, 4)}


def cue(gold: np.ndarray, rest: np.ndarray) -> float | None:
    """Probability that a gold passage is longer than another (0.5: length tells nothing); None where one of
    them is missing."""
    from scipy.stats import rankdata

    if not len(gold) or not len(rest):
        return None
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
    told: Counter[str] = Counter()
    alone = 0
    for name in ("train", "dev"):
        for row in read(folder / f"{name}.parquet"):
            n, gold = len(row["passages"]), set(row["gold_ids"])
            before[len(row["original_ids"])] += 1
            after[len(gold)] += 1
            domains[f"{row['dataset']}/{row['domain']}"] += 1
            sizes.append(n)
            alone += n == len(gold)
            dropped.append(row["n_dropped"])
            if row["n_tokens"]:
                tokens.append(row["n_tokens"])
            # A random spot within the passage's own slot: uniform order then gives uniform places at any n.
            places += [(i + r.random()) / n for i in sorted(gold)]
            if told["rows looked at"] < _LOOKED:
                told.update(_answers(row, gold))
            for i, text in enumerate(row["passages"]):
                (gold_words if i in gold else rest_words).append(size(text))
    return {
        "rows": len(sizes),
        "data sets": dict(domains),
        "gold a row before refinement": _spread(before),
        "gold a row after refinement": _spread(after),
        "passages a row": _summary(sizes),
        "rows without a distractor": alone,
        "negatives left out of the context": _summary(dropped),
        "tokens of the longest prompt": _summary(tokens),
        "gold positions": positions(places),
        "words of gold passages": _summary(gold_words),
        "words of other passages": _summary(rest_words),
        "P(gold longer than another passage)": cue(np.array(gold_words), np.array(rest_words)),
        "rows whose gold does not hold the answer": _share(told, "gold without it"),
        "rows with a distractor that holds the answer": _share(told, "distractor with it"),
    }


def _answers(row: dict[str, Any], gold: set[int]) -> Counter[str]:
    """Where a row's answer stands; rows with yes, no or a very short answer are not looked at."""
    said = [(a, spread(a)) for a in map(normalize, row["answers"]) if a not in ("yes", "no")]
    answers = [
        s for a, s in said if len(a) > 3 or (s != a and len(a) > 1)
    ]  # two Chinese characters are a name
    if not answers:
        return Counter()
    holds = [
        any(f" {a} " in f" {text} " for a in answers)
        for text in (spread(normalize(p)) for p in row["passages"])
    ]
    return Counter(
        {
            "rows looked at": 1,
            "gold without it": not any(holds[i] for i in gold),
            "distractor with it": any(h for i, h in enumerate(holds) if i not in gold),
        }
    )


def _share(told: Counter[str], name: str) -> float:
    return round(told[name] / told["rows looked at"], 3) if told["rows looked at"] else 0.0


_LOST = (
    "dropped:",
    "duplicate",
    "past its paragraph",
    "does not hold",
    "without a passage",
)  # counts of rows that went, or that say little


def warnings(found: dict[str, Any], stages: dict[str, Any]) -> list[str]:
    """What somebody should look at before training on the data, in sentences."""
    out: list[str] = []
    judged = stages.get("judge", {}).get("counts", {})
    hits = stages.get("refine", {}).get("counts", {})
    gone = judged.get("removed", 0)
    pairs = stages.get("dedupe", {}).get("counts", {}).get("hits", 0)
    if pairs and gone / pairs > 0.1:
        out.append(
            f"{gone:,} of {pairs:,} retrieved passages ({gone / pairs:.0%}) were removed as unjudged "
            "candidates"
        )
    if hits.get("candidates") and judged.get("rows no verdict"):
        out.append(f"{judged['rows no verdict']:,} rows have candidates that no judge has seen")
    if found["rows without a distractor"]:
        out.append(
            f"{found['rows without a distractor']:,} of {found['rows']:,} rows hold gold passages alone, "
            "nothing to find them among"
        )
    longer = found["P(gold longer than another passage)"]
    if longer is not None and not 0.35 <= longer <= 0.65:
        out.append(f"length gives the gold away: P(gold longer than another passage) is {longer}")
    if found["rows whose gold does not hold the answer"] > 0.1:
        out.append(
            f"{found['rows whose gold does not hold the answer']:.0%} of the rows have no answer in their "
            "gold passages"
        )
    if found["rows with a distractor that holds the answer"] > 0.5:
        share = found["rows with a distractor that holds the answer"]
        out.append(f"{share:.0%} of the rows have a distractor that holds the answer string")
    budget = stages.get("pack", {}).get("options", {}).get("tokens")
    median = found["tokens of the longest prompt"].get("median")
    if budget and median and median < budget / 2:
        out.append(f"the median prompt has {median:,.0f} tokens, less than half of the budget of {budget:,}")
    if found["gold positions"]["p_uniform"] < 0.001:
        out.append("gold positions are not uniform")
    for name in ("read", "corpus", "pack", "split"):
        for what, n in stages.get(name, {}).get("counts", {}).items():
            if any(t in what for t in _LOST) and n:
                out.append(f"{name}: {n:,} {what}")
    return out


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
    lines = [f"# Training data {manifest.hash()}", "", "| stage | seconds | counts |", "|---|---|---|"]
    for name, entry in manifest.stages.items():
        counts = ", ".join(f"{k} {v:,}" for k, v in entry["counts"].items())
        lines.append(f"| {name} | {entry.get('seconds', '')} | {counts} |")
    look = found["warnings"] = warnings(found, manifest.stages)
    if look:
        lines += ["", "Look at this:", "", *(f"- {text}" for text in look)]
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| {k} | {_shown(v)} |" for k, v in found.items() if k != "warnings"]
    write_atomic(folder / "report.json", json.dumps(found, indent=1).encode())
    write_atomic(folder / "report.md", "\n".join([*lines, ""]).encode())
    return found


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    return " ".join(str(v) for v in value) if isinstance(value, list) else f"{value:,}"
