"""Recall of the evidence at k tokens, by retriever: synth, HELMET, InfiniteBench, Loong and LongBench-v2.

    ICR_DATA_DIR=... python speed/retrieval_recall.py --embedder minilm --write docs/retrieval.md

HELMET and synth: share of the gold passages kept. Elsewhere: share of the questions, among those whose answer
stands in the documents, whose answer stands in the chunks kept. One item a question; the gold depth cycles
over questions.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from icr_tasks import benchmarks
from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Item
from icr_tasks.context.retrieve import DoesNotFit, retrieve
from icr_tasks.context.tokens import TokenCounter, counter
from icr_tasks.engines.smollm2 import export
from icr_tasks.errors import IcrError
from icr_tasks.settings import Setting

CASES = (  # benchmark, dataset, length, budgets, whether the embedder is run there (it is slow without a GPU)
    ("synth", "rag", "4k", ("512", "1k"), True),
    ("synth", "rag", "32k", ("512", "4k"), False),
    ("helmet_rag", "nq", "4k", ("512", "1k"), True),
    ("helmet_rag", "nq", "16k", ("512", "2k"), False),
    ("helmet_rag", "hotpotqa", "8k", ("512", "2k"), False),
    ("helmet_rag", "popqa", "4k", ("512",), False),
    ("infbench", "qa", None, ("2k", "4k"), True),
    ("infbench", "mc", None, ("4k", "32k"), False),
    ("loong_fin", "all", None, ("4k", "16k"), False),
    ("longbench_v2", "all", None, ("4k", "32k"), False),
)
PLAIN, DENSE = ("head", "random", "bm25"), ("dense", "hybrid")
FEW = 10  # rows of fewer questions say nothing
START, END = "<!-- recall: made by speed/retrieval_recall.py -->", "<!-- end of recall -->"


def questions(items: Sequence[Item], limit: int) -> list[Item]:
    """One item a question, of cycling variants."""
    by_question: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        by_question.setdefault((item.cluster, item.question), []).append(item)
    return [variants[n % len(variants)] for n, variants in enumerate(by_question.values())][:limit]


def recall(
    items: Sequence[Item], setting: str, benchmark: str, dataset: str, tokens: TokenCounter
) -> tuple[float, int, float] | None:
    """(mean recall, items with known evidence, mean tokens); None where the retriever does not work."""
    prompt, parsed = base.get(benchmark, None, dataset), Setting.parse(setting)
    mode = benchmarks.get(benchmark).units
    found, used = [], []
    for item in tqdm(items, desc=f"{benchmark} {dataset} {setting}", disable=None):
        try:
            digest = retrieve(item, item.units(), parsed, tokens, prompt, mode=mode).digest
        except DoesNotFit:
            found.append(0.0)
            continue
        used.append(digest["n_tokens"])
        if digest["recall"] is not None:
            found.append(digest["recall"])
    return (sum(found) / len(found), len(found), sum(used) / max(len(used), 1)) if found else None


def table(tokens: TokenCounter, embedder: str | None, limit: int, only: str | None) -> list[str]:
    """Lines of the table."""
    names = [*PLAIN, *(DENSE if embedder else ())]
    lines = [f"| data | context | {' | '.join(f'`{n}`' for n in names)} | questions |"]
    lines.append("|---|---|" + "---:|" * (len(names) + 1))
    small = "loong_replica.jsonl"  # where a folder has questions on other filings than the official ones
    loong = small if (benchmarks.data_root() / "loong" / small).is_file() else None
    for benchmark, dataset, length, budgets, dense in CASES:
        if only and only not in (benchmark, dataset):
            continue
        try:
            loaded = benchmarks.load(benchmark, dataset, length, allow_partial=True, questions_file=loong)
        except IcrError as error:
            print(f"left out {benchmark} {dataset} {length or ''}: {error}".splitlines()[0])
            continue
        items = questions(loaded.items, limit)
        for k in budgets:
            cells, known = [], 0
            for name in names:
                if name in DENSE and not dense:
                    cells.append("–")
                    continue
                more = f",embedder={embedder}" if name in DENSE else ""
                result = recall(items, f"rag@{k},{name}{more}", benchmark, dataset, tokens)
                cells.append("–" if result is None else f"{100 * result[0]:.0f}")
                known = result[1] if result else known
            if known < FEW:
                print(
                    f"left out {benchmark} {dataset} rag@{k}: the answer stands in the documents of {known} "
                    "questions"
                )
                continue
            label = " ".join(
                p for p in (benchmark, "" if dataset in ("all", "rag") else dataset, length) if p
            )
            lines.append(f"| {label} | rag@{k} | {' | '.join(cells)} | {known} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Print the table and, with --write, put it between its marks in a page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", help="default: SmolLM2's")
    parser.add_argument("--embedder", help="adds dense and hybrid where CASES says so, e.g. minilm")
    parser.add_argument("--limit", type=int, default=100, help="questions per row")
    parser.add_argument("--only", help="one benchmark or dataset")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    args = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    tokens = counter({"tokenizer": args.tokenizer or str(export())})
    assert tokens is not None
    lines = table(tokens, args.embedder, args.limit, args.only)
    if args.write:
        before, _, rest = args.write.read_text(encoding="utf-8").partition(START)
        _, mark, after = rest.partition(END)
        if not mark:
            raise SystemExit(f"{args.write} has no place for the table: {START} ... {END}")
        args.write.write_text("\n".join([before + START, *lines, END + after]), encoding="utf-8")


if __name__ == "__main__":
    main()
