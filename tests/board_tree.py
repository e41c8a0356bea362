"""A simulated results tree with the shape of the paper's: question, model and setting effects, clusters,
depths, gaps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.leaderboard.board.build import Board
from icr_tasks.leaderboard.board.tables import Table
from icr_tasks.leaderboard.ledgers import ledger

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"text": "full", "kind": "full", "method": None, "amount": None, "params": {}},
    "kv:topk@0.05": {"text": "kv:topk@0.05", "kind": "kv", "method": "topk", "amount": 0.05, "params": {}},
    "rag@4k": {"text": "rag@4k", "kind": "rag", "method": None, "amount": 4096, "params": {}},
    "rag@32k": {"text": "rag@32k", "kind": "rag", "method": None, "amount": 32768, "params": {}},
    "none": {"text": "none", "kind": "none", "method": None, "amount": None, "params": {}},
}
GAIN = {"full": 0.0, "kv:topk@0.05": -0.9, "rag@4k": -0.7, "rag@32k": 0.2, "none": -2.5}
TOKENS = {"4k": 4096, "16k": 16384, "64k": 65536, "": 120000}
DEPTHS = (0.0, 0.5, 1.0)
# dataset -> benchmark, metric, questions, lengths, level
DATASETS: dict[str, tuple[str, str, int, tuple[str, ...], float]] = {
    "hotpotqa": ("helmet_rag", "subem", 20, ("4k", "16k", "64k"), 0.3),
    "nq": ("helmet_rag", "subem", 20, ("4k", "16k", "64k"), 0.6),
    "mc": ("infbench", "acc", 40, ("",), 0.8),
    "qa": ("infbench", "f1", 40, ("",), -0.9),
    "all": ("longbench_v2", "acc", 60, ("",), -0.6),
}


def items(model: str, setting: str, dataset: str, length: str, skill: float) -> Iterator[dict[str, Any]]:
    """Ledger rows of one task; the same questions for every model, setting and length."""
    benchmark, metric, questions, lengths, level = DATASETS[dataset]
    shared = np.random.default_rng([*dataset.encode()])
    ease = shared.normal(0, 1.3, questions)
    own = np.random.default_rng([*f"{model}{setting}{dataset}{length}".encode()])
    task = task_name(dataset, length)
    for q in range(questions):
        for occ, depth in enumerate(DEPTHS if lengths[0] else (None,)):
            cost = 0.25 * (lengths.index(length) if length else 0) * (1 - (depth or 0))
            logit = level + skill + GAIN[setting] + ease[q] - cost + own.normal(0, 0.5)
            value = float(own.random() < 1 / (1 + np.exp(-logit)))
            if metric == "f1":
                value = round(value * float(own.uniform(0.4, 1)), 3)
            tokens = (
                min(TOKENS[length], SETTINGS[setting]["amount"])
                if setting.startswith("rag")
                else TOKENS[length]
            )
            yield {
                "task": task,
                "item": f"{dataset}-{q}-{occ}",
                "occ": 0,
                "cluster": f"{dataset}-{q // (2 if benchmark == 'infbench' else 1)}",
                "keys": {"length": length or None, "depth": depth},
                "score": {metric: value},
                "n_prompt_tokens": 60 if setting == "none" else tokens - q,
                "n_out_tokens": 9 + q % 5,
                "truncated": q % 10 == 0 and length == "",
                "gold_kept": None,
                "resp_hash": f"{q:016x}",
                "prompt_hash": f"{q:016x}",
                "target_hash": f"{q:016x}",
                "error": None,
            }


def task_name(dataset: str, length: str) -> str:
    """Name of the task of one dataset at one length."""
    benchmark = DATASETS[dataset][0]
    return "_".join(p for p in ("icr", benchmark, dataset if dataset != "all" else "", length) if p)


def run(
    root: Path,
    model: str,
    setting: str = "full",
    *,
    skill: float = 0.0,
    prompt: str = "ao",
    datasets: tuple[str, ...] = tuple(DATASETS),
    drop: float = 0.0,
    skip: tuple[str, ...] = (),
    version: str = "1-A",
    started: float = 1.7e9,
    revision: str | None = None,
    kv: dict[str, float] | None = None,
    change: Any = None,
) -> Path:
    """Write one run. `drop` leaves out that share of items of each task (partial), `skip` whole tasks."""
    inputs = {
        "model": model,
        "model_args": {
            "pretrained": model,
            "dtype": "bfloat16",
            "revision": revision,
            "max_model_len": 131072,
        },
        "engine": "icr-vllm",
        "setting": SETTINGS[setting],
        "prompt": prompt,
        "gen_kwargs": {},
        "gen_kwargs_cli": {},
        "chat": True,
    }
    head: dict[str, Any] = {
        "schema": 1,
        "fingerprint": ledger.fingerprint(inputs | {"v": version}),
        "fingerprint_inputs": inputs,
        "model": {
            "id": model,
            "slug": ledger.slug(model),
            "revision": revision,
            "dtype": "bfloat16",
            "adapter": None,
        },
        "engine": {"name": "icr-vllm"},
        "setting": SETTINGS[setting],
        "prompt": prompt,
        "gen_kwargs": {},
        "tasks": {},
        "versions": {},
        "git": None,
        "started": started,
        "seconds": {"total": 1234.5, "prefill": 800.0, "decode": 300.0},
        "tokens": {"prompt": 0, "output": 0},
        "status": "complete",
        **({"kv": kv} if kv else {}),
    }
    rows = []
    for dataset in datasets:
        benchmark, metric, _, lengths, _ = DATASETS[dataset]
        for length in lengths:
            task = task_name(dataset, length)
            if task in skip:
                continue
            own = list(items(model + (revision or ""), setting, dataset, length, skill))
            kept = own[: len(own) - int(drop * len(own))]
            head["tasks"][task] = {
                "benchmark": benchmark,
                "dataset": dataset,
                "length": length or None,
                "metric": metric,
                "metric_version": 1,
                "task_version": version,
                "data_revision": "r1",
                "data_source": "simulated",
                "official": True,
                "n_expected": len(own),
                "n_scored": len(kept),
                "n_failed": 0,
                "n_truncated": sum(r["truncated"] for r in kept),
                "status": "complete" if len(kept) == len(own) else "partial",
            }
            head["tokens"]["prompt"] += sum(r["n_prompt_tokens"] for r in kept)
            head["tokens"]["output"] += sum(r["n_out_tokens"] for r in kept)
            rows += kept
    if change:
        change(head, rows)
    return ledger.write(root, head, rows)


def tree(root: Path) -> Path:
    """Two models, three checkpoints of one, full context, compression and retrieval, with every kind of
    gap."""
    full = {
        "bytes_stored_per_token": 57344.0,
        "bytes_read_per_step": 3.1e9,
        "stored_fraction": 1.0,
        "read_fraction": 1.0,
    }
    small = full | {"bytes_read_per_step": 1.6e8, "read_fraction": 0.05, "mass_kept": 0.91}
    short = full | {"bytes_read_per_step": 2.3e8}
    base, ours = "org/base-7b", "org/ours-7b-step-300"
    out = ("mc", "qa", "all")
    run(root, base, kv=full)
    run(root, base, "kv:topk@0.05", kv=small, started=1.7e9 + 1)
    run(root, base, "rag@4k", datasets=out, kv=short, started=1.7e9 + 2)
    run(root, base, "rag@32k", datasets=out, kv=full | {"bytes_read_per_step": 1.8e9}, started=1.7e9 + 3)
    run(root, base, "none", started=1.7e9 + 4)
    run(root, ours, skill=0.6, kv=full, started=1.7e9 + 5)
    run(root, ours, "kv:topk@0.05", skill=0.7, kv=small, started=1.7e9 + 6)
    run(root, "org/ours-7b-step-100", skill=0.2, kv=full, started=1.7e9 + 7, datasets=("hotpotqa", "nq"))
    run(
        root,
        "org/ours-7b-step-200",
        skill=0.5,
        kv=full,
        started=1.7e9 + 8,
        datasets=("hotpotqa", "nq"),
        skip=("icr_helmet_rag_nq_16k",),
    )
    run(root, "org/partial", drop=0.25, started=1.7e9 + 9, datasets=("hotpotqa", "mc"))
    run(root, "org/old", version="0-A", started=1.7e9 - 9, datasets=("nq",))
    return root


def table(board: Board, name: str) -> Table:
    return next(t for t in board.tables if t.name == name)


def cells(t: Table, model: str, setting: str = "full") -> dict[str, Any]:
    line = next(line for line in t.lines if line.labels[:2] == (model, setting))
    return dict(zip(t.columns, line.cells, strict=True))


def scores(tree: Path, model: str, setting: str, task: str, metric: str = "subem") -> dict[str, float]:
    [folder] = (tree / ledger.slug(model) / ledger.slug(setting)).iterdir()
    return {r["item"]: r["score"][metric] for r in ledger.items(folder) if r["task"] == task}
