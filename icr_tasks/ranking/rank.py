"""Rank an item's documents by attention and by the baselines; gather the metrics of a task."""

from __future__ import annotations

import math
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from ..benchmarks.base import Unit
from ..context.build import DoesNotFit
from ..context.tokens import Chat
from ..errors import IcrError
from . import attention, calibrated
from .attention import Spans, locate

# ---- ranking -------------------------------------------------------------------------------------
# How well scores order documents: NDCG@k, MRR, recall@k. Pure functions on numpy arrays.

Scores = Sequence[float] | np.ndarray


def order(scores: Scores) -> np.ndarray:
    """Indices from best to worst; equal scores keep the order of the context (a constant score ranks by
    position)."""
    return np.argsort(-np.asarray(scores, float), kind="stable")


def dcg(gains: np.ndarray, k: int) -> float:
    """Sum of gain / log2(rank + 1) over the first k, ranks from 1 (linear gain)."""
    top = np.asarray(gains, float)[:k]
    return float((top / np.log2(np.arange(2, len(top) + 2))).sum())


def ndcg(scores: Scores, relevance: Scores, k: int = 10) -> float:
    """DCG over the DCG of the ideal order; NaN when nothing is relevant (nothing can be ranked well or
    badly)."""
    gains = np.asarray(relevance, float)
    best = dcg(np.sort(gains)[::-1], k)
    return dcg(gains[order(scores)], k) / best if best > 0 else float("nan")


def mrr(scores: Scores, gold: Scores) -> float:
    """1 / rank of the first gold document; NaN without one."""
    hits = np.flatnonzero(np.asarray(gold)[order(scores)] > 0)
    return float(1 / (hits[0] + 1)) if len(hits) else float("nan")


def recall(scores: Scores, gold: Scores, k: int = 10) -> float:
    """Share of the gold documents among the first k; NaN without gold."""
    flags = np.asarray(gold) > 0
    return float(flags[order(scores)[:k]].sum() / flags.sum()) if flags.any() else float("nan")


def random_ndcg(relevance: Scores, k: int = 10) -> float:
    """Expected NDCG@k of a random order, exactly: every place holds the mean gain."""
    gains = np.asarray(relevance, float)
    best = dcg(np.sort(gains)[::-1], k)
    return dcg(np.full(len(gains), gains.mean()), k) / best if best > 0 else float("nan")


def random_recall(gold: Scores, k: int = 10) -> float:
    """Expected recall@k of a random order."""
    n = len(np.asarray(gold))
    return min(k, n) / n if n and (np.asarray(gold) > 0).any() else float("nan")


def random_mrr(gold: Scores) -> float:
    """Expected reciprocal rank of the first gold document in a random order, exactly."""
    flags = np.asarray(gold) > 0
    n, g = len(flags), int(flags.sum())
    if not g:
        return float("nan")
    total, none_before = 0.0, 1.0
    for rank in range(1, n - g + 2):
        here = g / (n - rank + 1)
        total += none_before * here / rank
        none_before *= 1 - here
    return total


def all_metrics(scores: Scores, gold: Scores, graded: Scores | None, k: int = 10) -> dict[str, float]:
    """ndcg, mrr, recall at 1, 5, k, and ndcg_graded where the benchmark grades its passages."""
    out = {f"ndcg@{k}": ndcg(scores, gold, k), "mrr": mrr(scores, gold)}
    out |= {f"recall@{n}": recall(scores, gold, n) for n in (1, 5, k)}
    return out | ({f"ndcg_graded@{k}": ndcg(scores, graded, k)} if graded is not None else {})


def random_metrics(gold: Scores, graded: Scores | None, k: int = 10) -> dict[str, float]:
    """The expectation of `all_metrics` under a random order."""
    out = {f"ndcg@{k}": random_ndcg(gold, k), "mrr": random_mrr(gold)}
    out |= {f"recall@{n}": random_recall(gold, n) for n in (1, 5, k)}
    return out | ({f"ndcg_graded@{k}": random_ndcg(graded, k)} if graded is not None else {})


@dataclass
class Ranked:
    """One item: `rows` maps a method to its metrics, `by_head` (layers, heads) is NDCG@10 of each head
    alone."""

    id: str
    cluster: str
    n_documents: int
    n_tokens: int
    rows: dict[str, dict[str, float]]
    by_head: np.ndarray
    seconds: float
    signal: calibrated.Signal | None = None


def relevance(units: Sequence[Unit]) -> tuple[np.ndarray, np.ndarray | None]:
    """(binary gold, graded gain or None). Graded: the benchmark's score, 0 to 1, gold counting as the best
    grade."""
    gold = np.array([u.gold for u in units], float)
    grades = np.array([u.relevance if u.relevance is not None else np.nan for u in units], float)
    if np.isnan(grades[gold == 0]).any() or not (gold == 0).any():
        return gold, None
    top = max(float(np.nanmax(grades)), 1e-9)
    graded = np.clip(np.where(gold > 0, top, np.nan_to_num(grades)), 0, None) / top
    return gold, graded


def rank_item(
    model: Any,
    spans: Spans,
    units: Sequence[Unit],
    question: str,
    definitions: Sequence[str],
    plain: Spans | None = None,
) -> tuple[dict[str, dict[str, float]], np.ndarray, calibrated.Signal | None]:
    """Metrics of every method on one prompt, and NDCG@10 by (layer, head) from the question (else the last)
    token. `plain` is the same prompt with a question without content, which calibrated scores subtract."""
    gold, graded = relevance(units)
    texts = [u.text for u in units]
    rows = {
        name: all_metrics(f(texts, question, spans.counts), gold, graded) for name, f in BASELINES.items()
    }
    rows["random"] = random_metrics(gold, graded)
    heads, signal = np.zeros((0, 0)), None
    found = attention.attend(model, spans) if {"attention", "calibrated"} & {*definitions} else {}
    if plain is not None:
        mass = found["question"] - attention.attend(model, plain)["question"]
        signal = calibrated.Signal(mass, spans.counts, gold, graded)
        for name, mean in calibrated.scores(signal).items():
            rows[name] = all_metrics(mean, gold, graded)
    if "attention" in definitions:
        for query, sums in found.items():
            mean = sums.mean((0, 1))
            rows[f"attention/{query}/sum"] = all_metrics(mean, gold, graded)
            rows[f"attention/{query}/token"] = all_metrics(mean / spans.counts, gold, graded)
        best = found.get("question", found["last"]) / spans.counts
        heads = np.array([[all_metrics(h, gold, None)["ndcg@10"] for h in layer] for layer in best])
    if "paper_code" in definitions:
        rows["paper_code"] = all_metrics(attention.scores(model, spans), gold, graded)
    return rows, heads, signal


def run(
    model: Any,
    tokenizer: Any,
    task: Any,
    *,
    window: int,
    limit: int | None,
    chat: bool,
    definitions: Sequence[str],
) -> Iterator[Ranked | str]:
    """Ranked items of a loaded task, or the reason why an item was left out."""
    if not task.benchmark.marks_gold:
        raise IcrError(
            f"{task.config.task} does not mark gold documents; rank icr_helmet_rag_* or icr_synth_rag_* tasks"
        )
    source = Chat(tokenizer, window)
    builder = task.builder(source.apply_chat_template if chat else None, None)
    builder.overflow, builder.max_gen_toks = "skip", 0
    for item in tqdm(task.items[:limit], desc=task.config.task):
        started = time.perf_counter()
        units = item.units()
        if not any(u.gold for u in units):
            yield f"{item.id}: no gold document in the context"
            continue
        try:
            built = builder.build(item)
        except DoesNotFit as reason:
            yield f"{item.id}: {reason}"
            continue
        parts = builder.prompt.parts(units)
        spans = locate(str(built.prompt), parts, item.question, tokenizer, special=not chat)
        plain = None
        if _before(spans):
            yield f"{item.id}: its question stands before the documents only, so that no token of it attends to them"
            continue
        if "calibrated" in definitions:
            asked = builder.build(replace(item, question=calibrated.CONTENT_FREE))
            plain = locate(str(asked.prompt), parts, calibrated.CONTENT_FREE, tokenizer, special=not chat)
            if not (len(spans.question) and len(plain.question)):
                yield f"{item.id}: the prompt does not hold its question, so it cannot be calibrated"
                continue
        rows, heads, signal = rank_item(model, spans, units, item.question, definitions, plain)
        seconds = time.perf_counter() - started
        yield Ranked(item.id, item.cluster, len(units), len(spans.ids), rows, heads, seconds, signal)


def _before(spans: Spans) -> bool:
    first = int(np.argmax(spans.document >= 0))
    return len(spans.question) > 0 and int(spans.question.max()) < first


def add_retrieval_heads(items: Sequence[Ranked]) -> list[list[tuple[int, int]]] | None:
    """Add the row `calibrated/heads` to items that were calibrated; returns the heads that each half chose for the other."""
    signals = [i.signal for i in items if i.signal is not None]
    found = calibrated.held_out([i.cluster for i in items], signals) if len(signals) == len(items) else None
    if found is None:
        return None
    for item, signal, scored in zip(items, signals, found[0], strict=True):
        item.rows["calibrated/heads"] = all_metrics(scored, signal.gold, signal.graded)
    return found[1]


def peak_memory() -> dict[str, int]:
    """Peak bytes of this process, and of the GPU where there is one."""
    import torch

    out = {
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    }
    return out | ({"cuda": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {})


# ---- baselines -----------------------------------------------------------------------------------
# Orders that need no model: what a ranking must beat before it means anything.

_WORD = re.compile(r"\w+")


def bm25(texts: Sequence[str], question: str, k1: float = 1.5, b: float = 0.75) -> np.ndarray:
    """Okapi BM25 of each document, statistics over the item's own documents. (documents,) float64."""
    docs = [Counter(_WORD.findall(t.lower())) for t in texts]
    lengths = np.array([sum(d.values()) for d in docs], float)
    mean = lengths.mean() or 1.0
    out = np.zeros(len(docs))
    for word in set(_WORD.findall(question.lower())):
        tf = np.array([d[word] for d in docs], float)
        seen = int((tf > 0).sum())
        idf = math.log(1 + (len(docs) - seen + 0.5) / (seen + 0.5))
        out += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths / mean))
    return out


BASELINES: dict[str, Callable[[Sequence[str], str, np.ndarray], np.ndarray]] = {
    "bm25": lambda texts, question, counts: bm25(texts, question),
    "length": lambda texts, question, counts: counts.astype(float),
    "position": lambda texts, question, counts: -np.arange(len(texts), dtype=float),
    "reversed": lambda texts, question, counts: np.arange(len(texts), dtype=float),
}
