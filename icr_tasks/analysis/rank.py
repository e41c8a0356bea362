"""Rank an item's documents by attention and by the baselines; gather the metrics of a task."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from ..context.build import DoesNotFit
from ..data.item import Unit
from ..errors import IcrError
from . import attention, paper_code
from .baselines import BASELINES
from .ranking import all_metrics, random_metrics
from .spans import Spans, locate


@dataclass
class Chat:
    """What a task asks of a running model: its tokenizer, window and chat template."""

    tokenizer: Any
    max_length: int

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The rendered conversation."""
        return self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, continue_final_message=not add_generation_prompt
        )  # fmt: skip


@dataclass
class Ranked:
    """One item: `rows` maps a method to its metrics, `by_head` (layers, heads) is NDCG@10 of each head alone."""

    id: str
    cluster: str
    n_documents: int
    n_tokens: int
    rows: dict[str, dict[str, float]]
    by_head: np.ndarray
    seconds: float


def relevance(units: Sequence[Unit]) -> tuple[np.ndarray, np.ndarray | None]:
    """(binary gold, graded gain or None). Graded: the benchmark's score, 0 to 1, gold counting as the best grade."""
    gold = np.array([u.gold for u in units], float)
    grades = np.array([u.relevance if u.relevance is not None else np.nan for u in units], float)
    if np.isnan(grades[gold == 0]).any() or not (gold == 0).any():
        return gold, None
    top = max(float(np.nanmax(grades)), 1e-9)
    graded = np.clip(np.where(gold > 0, top, np.nan_to_num(grades)), 0, None) / top
    return gold, graded


def rank_item(model: Any, spans: Spans, units: Sequence[Unit], question: str, definitions: Sequence[str]) -> tuple[dict[str, dict[str, float]], np.ndarray]:  # fmt: skip
    """Metrics of every method on one prompt, and NDCG@10 by (layer, head) from the question (else the last) token."""
    gold, graded = relevance(units)
    texts = [u.text for u in units]
    rows = {name: all_metrics(f(texts, question, spans.counts), gold, graded) for name, f in BASELINES.items()}
    rows["random"] = random_metrics(gold, graded)
    heads = np.zeros((0, 0))
    if "attention" in definitions:
        found = attention.attend(model, spans)
        for query, sums in found.items():
            mean = sums.mean((0, 1))
            rows[f"attention/{query}/sum"] = all_metrics(mean, gold, graded)
            rows[f"attention/{query}/token"] = all_metrics(mean / spans.counts, gold, graded)
        best = found.get("question", found["last"]) / spans.counts
        heads = np.array([[all_metrics(h, gold, None)["ndcg@10"] for h in layer] for layer in best])
    if "paper_code" in definitions:
        rows["paper_code"] = all_metrics(paper_code.scores(model, spans), gold, graded)
    return rows, heads


def run(
    model: Any, tokenizer: Any, task: Any, *, window: int, limit: int | None, chat: bool, definitions: Sequence[str]
) -> Iterator[Ranked | str]:
    """Ranked items of a loaded task, or the reason why an item was left out."""
    if task.sheet["benchmark"] not in ("helmet_rag", "synth"):
        raise IcrError(
            f"{task.config.task} does not mark gold documents; rank icr_helmet_rag_* or icr_synth_rag_* tasks"
        )
    source = Chat(tokenizer, window)
    builder = task._builder(source.apply_chat_template if chat else None, None)
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
        rows, heads = rank_item(model, spans, units, item.question, definitions)
        yield Ranked(item.id, item.cluster, len(units), len(spans.ids), rows, heads, time.perf_counter() - started)


def peak_memory() -> dict[str, int]:
    """Peak bytes of this process, and of the GPU where there is one."""
    import torch

    out = {"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)}
    return out | ({"cuda": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {})
