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
from pathlib import Path

from ..errors import unknown
from ..storage import writing
from .amounts import at_least

DEFINITIONS = ("attention", "calibrated", "paper_code")


def main(argv: list[str]) -> int:
    """Returns 0, or 1 when a task had no item that could be ranked; the other tasks' results are written
    first."""
    parser = argparse.ArgumentParser(
        prog="icr rank", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="hub id or folder")
    parser.add_argument("--revision", help="branch, tag or commit of the model")
    parser.add_argument(
        "--tasks", required=True, help="comma-separated tasks or groups of HELMET-RAG or synth"
    )
    parser.add_argument("--prompt", help="ao (default), id, idc, idq, judge; official (HELMET-RAG alone)")
    parser.add_argument(
        "--definition", default="attention", help="attention, calibrated, paper_code, or several with commas"
    )
    parser.add_argument("--limit", type=at_least(1), help="items per task")
    parser.add_argument(
        "--max-length",
        type=at_least(1),
        help="prompts longer than this are left out (default: the model's window)",
    )
    parser.add_argument(
        "--allow-partial", action="store_true", help="accept data with another count than the official"
    )
    parser.add_argument("--no-chat-template", action="store_true", help="give the prompt as plain text")
    parser.add_argument("--dtype", default="auto", help="of the weights: auto, float32, bfloat16 ...")
    parser.add_argument("--device", help="cuda, cuda:1, cpu (default: a GPU where there is one)")
    parser.add_argument("--results", type=Path, help="a run's ledger: correlate with its scores")
    parser.add_argument("-o", "--out", type=Path, help="folder for rank_<task>.json")
    args = parser.parse_args(argv)
    definitions = [d.strip() for d in args.definition.split(",")]
    for name in definitions:
        if name not in DEFINITIONS:
            raise unknown("definition", name, DEFINITIONS)
    from ..ranking import reports
    from ..ranking.report import table

    empty = 0
    for report in reports.made(
        args.model,
        [t.strip() for t in args.tasks.split(",")],
        revision=args.revision,
        prompt=args.prompt,
        limit=args.limit,
        max_length=args.max_length,
        allow_partial=args.allow_partial,
        chat=not args.no_chat_template,
        dtype=args.dtype,
        device=args.device,
        results=args.results,
        definitions=definitions,
    ):
        if isinstance(report, str):
            print(f"icr rank: {report}", file=sys.stderr)
            empty += 1
            continue
        print(table(report), end="\n\n", flush=True)
        if args.out:
            with writing(args.out, "choose another folder with -o"):
                reports.write(report, args.out)
    return 1 if empty else 0
