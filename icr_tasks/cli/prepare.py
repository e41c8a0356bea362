"""`icr prepare`: chunk, embed and retrieve ahead, so that evaluation runs need neither an embedder nor the
time.

icr prepare --tasks icr_infbench,icr_loong_fin --setting rag@4k --setting rag@32k --tokenizer MODEL
icr prepare --tasks icr_infbench --setting rag@32k --tokenizer MODEL --embedder Qwen/Qwen3-Embedding-4B

Runs of the same tasks, setting, prompt and tokenizer then use what was prepared; others are refused with the
command that prepares theirs.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ..context import tokens
from ..context.ahead import each
from ..context.prepared import Prepared, entry, head
from ..context.quality import by_type
from ..context.retrieval import make
from ..context.retrieve import DoesNotFit, candidates, query, retrieve
from ..errors import IcrError
from ..leaderboard.stats import Design
from .amounts import at_least

_TOGETHER = 16  # items whose passages are embedded in one call
QUALITY = (
    "| task | setting | question type | known | recall | MRR | nDCG |\n|---|---|---|---:|---:|---:|---:|"
)
HEADER = (
    "| task | setting | items | chunks | kept | tokens, mean (max) | recall (known) | whole | seconds |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


def main(argv: list[str]) -> int:
    """Returns 0; IcrError for names, settings without retrieval, missing data, an embedder that does not
    load."""
    parser = argparse.ArgumentParser(
        prog="icr prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", required=True, help="comma-separated tasks or groups")
    parser.add_argument(
        "--setting", required=True, action="append", help="rag@32k ...; may be given several times"
    )
    parser.add_argument(
        "--k", help="512,1k,4k: each setting at every one of these, from one index and embedding"
    )
    parser.add_argument("--tokenizer", required=True, help="the evaluated model's: folder or hub id")
    parser.add_argument("--tokenizer-revision", help="commit of the tokenizer")
    parser.add_argument("--prompt", help="prompt format of the runs (default: each benchmark's own)")
    parser.add_argument("--embedder", help="hub id, folder or served name; makes the settings use it")
    parser.add_argument("--embed-engine", help="st (sentence-transformers, default), vllm or openai")
    parser.add_argument("--embed-url", help="address of an OpenAI-compatible embedding server, ending in /v1")
    parser.add_argument(
        "--embed-limit", type=at_least(1), help="tokens the served embedder reads of one text"
    )
    parser.add_argument("--embed-tokenizer", help="folder or hub id of the served embedder's tokenizer")
    parser.add_argument(
        "--rerank-url", help="address of a server with /rerank, ending in /v1, for rerank=MODEL"
    )
    parser.add_argument("--ask-url", help="address of a chat server, ending in /v1, for asker=MODEL")
    parser.add_argument(
        "--limit", type=at_least(1), help="only the first N items of each task; runs retrieve the rest"
    )
    parser.add_argument(
        "--workers", type=at_least(1), help="processes (default: one a core; 1 where a model ranks or embeds)"
    )
    parser.add_argument("--allow-partial", action="store_true", help="accept data files of another size")
    parser.add_argument("--questions-file", help="Loong: another question file beside loong.jsonl")
    args = parser.parse_args(argv)
    settings = [text for setting in args.setting for text in _at_every(setting, args.k)]
    rows = [row for setting in settings for row in _prepare(args, setting)]
    if quality := [line for row in rows for line in row.quality]:
        print(QUALITY)
        print("\n".join(quality), end="\n\n")
    print(HEADER)
    print("\n".join(row.line for row in rows))
    for setting in dict.fromkeys(row.setting for row in rows):
        metadata = {"setting": setting} | ({"prompt": args.prompt} if args.prompt else {})
        print(f"run it with  --metadata '{json.dumps(metadata, separators=(',', ':'))}'")
    return 0


class _Row(NamedTuple):
    setting: str
    line: str
    quality: list[str]


def _at_every(setting: str, amounts: str | None) -> list[str]:
    """The setting at every k of `--k 512,4k`; as it is without."""
    if not amounts:
        return [setting]
    found = re.sub(r"^(rag[^@,]*|route:[^@,]*)@[^,+]+", r"\1@{}", setting.strip())
    if "{}" not in found:
        raise IcrError(f"--k is for settings like rag@4k, not {setting!r}")
    return [found.format(k.strip()) for k in amounts.split(",") if k.strip()]


def _prepare(args: argparse.Namespace, setting: str) -> list[_Row]:
    metadata = {
        "setting": setting,
        "tokenizer": args.tokenizer,
        "tokenizer_revision": args.tokenizer_revision,
        "prompt": args.prompt,
        "embedder": args.embedder,
        "embed_engine": args.embed_engine,
        "embed_url": args.embed_url,
        "embed_limit": args.embed_limit,
        "embed_tokenizer": args.embed_tokenizer,
        "rerank_url": args.rerank_url,
        "ask_url": args.ask_url,
        "questions_file": args.questions_file,
        "allow_partial": args.allow_partial or None,
    }
    metadata = {k: v for k, v in metadata.items() if v is not None}
    counter = tokens.counter(metadata)
    if counter is None:
        raise IcrError("retrieval counts tokens: --tokenizer must name the evaluated model's tokenizer")
    tasks = _load(args.tasks, metadata)
    return [_task(task, counter, args.limit, args.workers) for task in tasks]


def _load(names: str, metadata: dict[str, Any]) -> list[Any]:
    from ..harness.run import named

    return list(named([name.strip() for name in names.split(",") if name.strip()], metadata).values())


def _task(task: Any, counter: tokens.TokenCounter, limit: int | None, workers: int | None) -> _Row:
    """Prepare one task and return its lines of the tables."""
    setting, started = task.options.setting.rag, time.perf_counter()
    if setting is None:
        raise IcrError(f"setting {task.options.setting} retrieves nothing; prepare is for rag@k")
    mode = task.benchmark.units
    items = task.items[:limit]
    _embed(task, items, counter)

    def select(item: Any) -> dict[str, Any] | None:
        units = item.units()
        try:
            chosen = retrieve(
                item, units, setting, counter, task.prompt_format, mode=mode, engine=task.options.embed
            )
        except DoesNotFit:
            return None
        return entry(units, chosen.spans, chosen.digest)

    retriever = make(setting.params["retriever"], setting.params, task.options.embed)
    found = each(items, select, workers if retriever.forks else 1)
    kept = dict(tqdm(found, desc=f"{task.config.task} {setting}", total=len(items)))
    made = Prepared(head(task, counter), {i.id: kept[n] for n, i in enumerate(items) if kept[n] is not None})
    unfit = sum(one is None for one in kept.values())
    if items and unfit == len(items):
        raise IcrError(f"{task.config.task} {setting}: no item has a piece of context that fits")
    made.save()
    digests = [entry["digest"] for entry in made.items.values()]
    about = {item.id: (item.keys, item.cluster) for item in items}
    quality = _quality(f"{task.config.task} | {setting}", [about[i] for i in made.items], digests)
    line = _row(task.config.task, str(setting), digests, unfit, time.perf_counter() - started)
    return _Row(str(setting), line, quality)


def _quality(label: str, items: Sequence[Any], digests: list[dict[str, Any]]) -> list[str]:
    """A line a question type: recall, MRR and nDCG x 100 with 95 % intervals over clusters; none without
    evidence."""
    lines = []
    for kind, found in by_type(items, digests).items():
        if found:
            design = Design([cluster for _, cluster in found])
            cells = []
            for name in ("recall", "mrr", "ndcg"):
                mean, low, high = design.score(
                    np.array([measures[name] for measures, _ in found])
                ).in_points()
                cells.append(f"{mean:.1f} [{low:.1f}, {high:.1f}]")
            lines.append(f"| {label} | {kind} | {len(found)} | {' | '.join(cells)} |")
    return lines


def _embed(task: Any, items: list[Any], counter: tokens.TokenCounter) -> None:
    """Embed questions, and passages of many items, in large batches; the retriever finds them on disk
    afterwards.

    Long documents are not held side by side: each fills batches of its own.
    """
    setting = task.options.setting.rag
    retriever = make(setting.params["retriever"], setting.params, task.options.embed)
    retriever.prepare([], [query(item) for item in items])
    if task.benchmark.units != "passages":
        return
    for start in range(0, len(items), _TOGETHER):
        found = [item.units() for item in items[start : start + _TOGETHER]]
        filled = [units for units in found if any(u.text.strip() for u in units)]
        retriever.prepare(
            [candidates(units, setting, counter, task.prompt_format, "passages") for units in filled], []
        )


def _row(task: str, setting: str, digests: list[dict[str, Any]], unfit: int, seconds: float) -> str:
    n = len(digests)
    used = [d["n_tokens"] for d in digests]
    recalls = [d["recall"] for d in digests if d["recall"] is not None]
    known = f"{100 * sum(recalls) / len(recalls):.1f} % ({len(recalls)})" if recalls else "–"
    means = [f"{sum(d[key] for d in digests) / max(n, 1):.1f}" for key in ("n_chunks", "n_kept")]
    cells = [
        task,
        setting,
        f"{n}" + (f" (+{unfit} do not fit)" if unfit else ""),
        *means,
        f"{sum(used) / max(n, 1):.0f} ({max(used, default=0)})",
        known,
        str(sum(d["whole"] for d in digests)),
        f"{seconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |"
