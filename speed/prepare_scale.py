"""Chunking and BM25 for books that share questions: throughput, memory, and the ratio to indexing per
question.

    python speed/prepare_scale.py --tokenizer FOLDER        # 60 books of 1 MB, 10 questions each

Runs the real path (`retrieve`) in fresh processes: 1 question a book and 10, for memory; and 10 with the
caches emptied before each question, on a share of the books, for the ratio. Times are CPU seconds, so that
other work on the machine does not change them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Item, Unit
from icr_tasks.context import pool
from icr_tasks.context.retrieval import bm25
from icr_tasks.context.retrieve import retrieve
from icr_tasks.context.tokens import counter
from icr_tasks.engines.smollm2 import export
from icr_tasks.settings import Setting

WORDS = [
    f"{a}{b}{c}"
    for a in ("mor", "tel", "san", "kri", "vo")
    for b in ("a", "ende", "il", "ou")
    for c in ("n", "st", "ring", "", "lo", "k")
]


def book(number: int, size: int) -> str:
    """Prose-like text of `size` characters with names of its own."""
    r = random.Random(number)
    names = [f"Name{number}x{i}" for i in range(400)]
    out, length = [], 0
    while length < size:
        words = r.choices(WORDS, k=r.randint(6, 18))
        words[r.randrange(len(words))] = r.choice(names)
        sentence = " ".join(words).capitalize() + r.choice((". ", ". ", "? ", ".\n\n"))
        out.append(sentence)
        length += len(sentence)
    return "".join(out)[:size]


def work(args: argparse.Namespace) -> None:
    """One measured process: prints CPU seconds, peak MB and items as JSON."""
    setting, tokens, prompt = (
        Setting.parse(args.setting),
        counter({"tokenizer": args.tokenizer}),
        base.get("infbench", None, "qa"),
    )
    assert tokens is not None
    tokens.count("warm up")
    retrieve(_item(0, 0), [Unit("w", "warm up. " * 5000)], setting, tokens, prompt, mode="documents")
    spent = kept = 0.0
    for number in range(args.books):
        text = book(number, args.size)
        for question in range(args.questions):
            if args.naive:
                pool._CACHE.clear()
                bm25._INDEXES.clear()
                bm25._TERMS.clear()
            started = time.process_time()
            chosen = retrieve(
                _item(number, question), [Unit(str(number), text)], setting, tokens, prompt, mode="documents"
            )
            spent += time.process_time() - started
            kept += chosen.digest["n_tokens"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": spent, "peak": peak, "tokens": kept / (args.books * args.questions)}))


def _item(number: int, question: int) -> Item:
    return Item(
        f"{number}-{question}",
        f"What did Name{number}x{question} say to Name{number}x{question + 20}?",
        ("?",),
        "b",
        list,
    )


def measure(args: argparse.Namespace, books: int, questions: int, *more: str) -> dict[str, float]:
    """Run `work` in a process of its own."""
    command = [sys.executable, __file__, "--worker", "--tokenizer", args.tokenizer, "--setting", args.setting]
    command += ["--books", str(books), "--questions", str(questions), "--size", str(args.size), *more]
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout
    return json.loads(out.splitlines()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", help="default: SmolLM2's")
    parser.add_argument("--setting", default="rag@4k")
    parser.add_argument("--books", type=int, default=60)
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument(
        "--naive-books", type=int, default=6, help="books of the per-question run (it is slow)"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--naive", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.tokenizer = args.tokenizer or str(export())
    if args.worker:
        return work(args)
    shared = measure(args, args.books, args.questions)
    single = measure(args, args.books, 1)
    naive = measure(args, args.naive_books, args.questions, "--naive")
    megabytes = args.books * args.size / 1e6
    print(
        f"{args.books} books x {args.questions} questions, {args.size / 1e6:g} MB each, {args.setting}, "
        "bm25\n"
    )
    print("| | CPU s a book | MB of books / CPU s | peak memory, MB |")
    print("|---|---:|---:|---:|")
    for label, run, books in (
        (f"{args.questions} questions a book", shared, args.books),
        ("1 question a book", single, args.books),
        (
            f"{args.questions} questions a book, indexed per question ({args.naive_books} books)",
            naive,
            args.naive_books,
        ),
    ):
        print(
            f"| {label} | {run['cpu'] / books:.2f} | {megabytes / args.books * books / run['cpu']:.2f} | "
            f"{run['peak']:.0f} |"
        )
    ratio = naive["cpu"] / args.naive_books / (shared["cpu"] / args.books)
    print(f"\nindexed per question / indexed once: {ratio:.1f}x; mean context {shared['tokens']:.0f} tokens")


if __name__ == "__main__":
    main()
