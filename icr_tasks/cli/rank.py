"""`icr rank`: how well a model's attention ranks the documents it is given, against orders that need no
model.

    icr rank --model Qwen/Qwen2.5-7B-Instruct --tasks icr_helmet_rag_nq_32k --limit 100 -o out
    icr rank --model MODEL --tasks icr_synth_rag_1k --results results/MODEL/full/0123456789ab

Attention is the model's own (after RoPE, causal, normalised), from the question's tokens and from the last
token, summed over a document's tokens or per token. `--definition calibrated` subtracts what a question without
content gives, over all heads and over retrieval heads chosen on other questions; `paper_code` adds the score of
the paper's released code.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from ..errors import IcrError, unknown

DEFINITIONS = ("attention", "calibrated", "paper_code")


def main(argv: list[str]) -> int:
    """Returns 0, or 1 when a task had no item that could be ranked; the other tasks' results are written
    first."""
    parser = argparse.ArgumentParser(
        prog="icr rank", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="hub id or folder")
    parser.add_argument("--revision")
    parser.add_argument(
        "--tasks", required=True, help="comma-separated tasks or groups of HELMET-RAG or synth"
    )
    parser.add_argument("--prompt", help="ao (default), id, idc, idq, judge, official")
    parser.add_argument(
        "--definition", default="attention", help="attention, calibrated, paper_code, or several with commas"
    )
    parser.add_argument("--limit", type=int, help="items per task")
    parser.add_argument(
        "--max-length", type=int, help="prompts longer than this are left out (default: the model's window)"
    )
    parser.add_argument(
        "--allow-partial", action="store_true", help="accept data with another count than the official"
    )
    parser.add_argument("--no-chat-template", action="store_true")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device")
    parser.add_argument("--results", type=Path, help="a run's ledger: correlate with its scores")
    parser.add_argument("-o", "--out", type=Path, help="folder for rank_<task>.json")
    args = parser.parse_args(argv)
    definitions = [d.strip() for d in args.definition.split(",")]
    for name in definitions:
        if name not in DEFINITIONS:
            raise unknown("definition", name, DEFINITIONS)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    empty = 0
    for report in _reports(args, definitions):
        if isinstance(report, str):
            print(f"icr rank: {report}", file=sys.stderr)
            empty += 1
            continue
        from ..ranking.report import table

        print(table(report), end="\n\n", flush=True)
        if args.out:
            (args.out / f"rank_{report['task']}.json").write_bytes(
                orjson.dumps(report, option=orjson.OPT_INDENT_2)
            )
    return 1 if empty else 0


def _reports(args: argparse.Namespace, definitions: list[str]) -> Any:
    import logging

    from ..harness.run import manager
    from ..ranking import attention, rank

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    metadata = {
        "pretrained": args.model,
        "revision": args.revision,
        "allow_partial": args.allow_partial or None,
    }
    metadata = {k: v for k, v in {**metadata, "prompt": args.prompt}.items() if v is not None}
    loaded = manager(metadata).load([t.strip() for t in args.tasks.split(",")])["tasks"]
    model, tokenizer = attention.load(
        args.model, revision=args.revision, dtype=args.dtype, device=args.device
    )
    window = args.max_length or getattr(model.config, "max_position_embeddings", None)
    if window is None:
        raise IcrError("the model's config names no window; pass --max-length")
    chat = not args.no_chat_template and bool(getattr(tokenizer, "chat_template", None))
    for name, task in loaded.items():
        started = time.perf_counter()
        items: list[Any] = []
        left_out: list[str] = []
        for found in rank.run(
            model, tokenizer, task, window=window, limit=args.limit, chat=chat, definitions=definitions
        ):
            (left_out if isinstance(found, str) else items).append(found)  # type: ignore[arg-type]
        if not items:
            yield f"{name}: no item could be ranked; first reason: {left_out[0] if left_out else 'no items'}"
            continue
        yield _report(args, name, task, items, left_out, time.perf_counter() - started)


def _report(
    args: argparse.Namespace, name: str, task: Any, items: list[Any], left_out: list[str], seconds: float
) -> dict[str, Any]:
    from ..ranking import rank, report

    chosen = rank.add_retrieval_heads(items)
    correlation = {}
    if args.results:
        scores = report.task_scores(args.results, name)
        # the orders without a model are the control: where the gold stands, how many there are
        correlation = {m: report.correlation(items, m, scores) for m in items[0].rows}
    return {
        "schema": report.SCHEMA,
        "model": args.model,
        "revision": args.revision,
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
        "seconds": seconds,
    }
