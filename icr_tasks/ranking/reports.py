"""Rank the documents of tasks by a model's attention: one report a task, as rank_<task>.json holds it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from ..errors import IcrError
from ..storage import write_atomic
from . import attention, rank, report


def made(
    name: str,
    tasks: Sequence[str],
    *,
    revision: str | None = None,
    prompt: str | None = None,
    limit: int | None = None,
    max_length: int | None = None,
    allow_partial: bool = False,
    chat: bool = True,
    dtype: str = "auto",
    device: str | None = None,
    results: Path | None = None,
    definitions: Sequence[str] = ("attention",),
) -> Iterator[dict[str, Any] | str]:
    """Reports of a model (hub id or folder), task by task; a text for a task without an item that could be
    ranked. `results`: a run's ledger, whose scores the reports correlate with."""
    import logging

    from ..harness.run import named

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    given = {
        "pretrained": name,
        "revision": revision,
        "allow_partial": allow_partial or None,
        "prompt": prompt,
    }
    loaded = named(tasks, {k: v for k, v in given.items() if v is not None})
    model, tokenizer = attention.load(name, revision=revision, dtype=dtype, device=device)
    window = max_length or getattr(model.config, "max_position_embeddings", None)
    if window is None:
        raise IcrError("the model's config names no window; pass --max-length")
    chat = chat and bool(getattr(tokenizer, "chat_template", None))
    for title, task in loaded.items():
        started = time.perf_counter()
        items: list[Any] = []
        left_out: list[str] = []
        for found in rank.run(
            model, tokenizer, task, window=window, limit=limit, chat=chat, definitions=list(definitions)
        ):
            (left_out if isinstance(found, str) else items).append(found)  # type: ignore[arg-type]
        if not items:
            yield f"{title}: no item could be ranked; first reason: {left_out[0] if left_out else 'no items'}"
            continue
        seconds = time.perf_counter() - started
        yield _report(title, task, items, left_out, results) | {
            "model": name,
            "revision": revision,
            "seconds": seconds,
        }


def write(found: dict[str, Any], out: Path) -> Path:
    """out/rank_<task>.json, whole or not at all."""
    path = out / f"rank_{found['task']}.json"
    write_atomic(path, orjson.dumps(found, option=orjson.OPT_INDENT_2))
    return path


def _report(
    name: str, task: Any, items: list[Any], left_out: list[str], results: Path | None
) -> dict[str, Any]:
    chosen = rank.add_retrieval_heads(items)
    correlation = {}
    if results:
        scores = report.task_scores(results, name)
        # the orders without a model are the control: where the gold stands, how many there are
        correlation = {m: report.correlation(items, m, scores) for m in items[0].rows}
    return {
        "schema": report.SCHEMA,
        "task": name,
        "prompt": task.prompt_format.name,
        "data": {
            k: task.sheet[k]
            for k in ("benchmark", "dataset", "length", "data_source", "data_revision", "official")
        },
        "n_items": len(items),
        "n_left_out": len(left_out),
        "left_out": left_out[:20],
        "documents": sum(i.n_documents for i in items) / len(items),
        "tokens": sum(i.n_tokens for i in items) / len(items),
        "methods": report.summary(items),
        "best_head": report.best_head(items),
        **({"retrieval_heads": chosen} if chosen else {}),
        "correlation": correlation,
        "items": [
            {
                "item": i.id,
                "cluster": i.cluster,
                "tokens": i.n_tokens,
                "ndcg@10": {m: r["ndcg@10"] for m, r in i.rows.items()},
            }
            for i in items
        ],
        "peak_memory": rank.peak_memory(),
    }
