"""Small results trees for tests of comparisons: four benchmarks, clustered items, anything about them
changeable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.leaderboard.ledgers import ledger, lm_eval_files

# task -> (benchmark, dataset, length, metric, questions, items a question)
TASKS = {
    "icr_helmet_rag_nq_4k": ("helmet_rag", "nq", "4k", "subem", 60, 3),
    "icr_helmet_rag_nq_8k": ("helmet_rag", "nq", "8k", "subem", 60, 3),
    "icr_infbench_mc": ("infbench", "mc", None, "acc", 80, 1),
    "icr_longbench_v2": ("longbench_v2", "all", None, "acc", 120, 1),
    "icr_loong_fin": ("loong_fin", "all", None, "judge", 50, 2),
}
Rows = dict[str, list[dict[str, Any]]]


def rows(seed: int = 0, right: float = 0.7, tasks: tuple[str, ...] = tuple(TASKS)) -> Rows:
    """Ledger rows by task; a question's difficulty is shared by its items and the same under every seed."""
    found: Rows = {}
    for number, name in enumerate(tasks):
        benchmark, _, length, metric, questions, each = TASKS[name]
        level = np.random.default_rng(number).normal(0, 0.2, questions)
        draw = np.random.default_rng([seed, number])
        found[name] = []
        for q in range(questions):
            for i in range(each):
                score = float(draw.random() < right + level[q])
                found[name].append(
                    {
                        "task": name,
                        "item": f"{benchmark}-{q}-{i}",
                        "occ": 0,
                        "cluster": f"q{q}",
                        "keys": {"length": length, "depth": i / 2},
                        "score": {metric: score, "other": score / 2},
                        "n_prompt_tokens": 4000,
                        "n_out_tokens": 5,
                        "truncated": False,
                        "resp_hash": f"{q + 1:08x}{i:04x}{int(score):04x}",
                        "prompt_hash": f"{number:08x}{q:04x}{i:04x}",
                        "target_hash": f"{q + 1:016x}",
                        "error": None,
                    }
                )
    return found


def write(
    root: Path,
    found: Rows,
    *,
    model: str = "org/base",
    setting: str = "full",
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Write a run with counts and means that fit its rows; `change` edits run.json before it is written."""
    text = {"text": setting, "kind": setting, "method": None, "amount": None, "params": {}}
    inputs = {
        "model": model,
        "model_args": {"pretrained": model},
        "engine": "icr-vllm",
        "setting": text,
        "prompt": "ao",
    }
    tasks = {}
    for name, items in found.items():
        benchmark, dataset, length, metric, questions, each = TASKS[name]
        scored = [row for row in items if row["score"] and not row["error"]]
        metrics = {m for row in scored for m in row["score"]}
        means = {m: float(np.mean([row["score"][m] for row in scored if m in row["score"]])) for m in metrics}
        tasks[name] = {
            "benchmark": benchmark,
            "dataset": dataset,
            "length": length,
            "metric": metric,
            "metric_version": 1,
            "task_version": "1-A",
            "data_revision": "r1",
            "official": True,
            "judge": None,
            "filter": "none",
            "n_expected": questions * each,
            "n_scored": len(scored),
            "n_failed": len(items) - len(scored),
            "n_truncated": sum(row["truncated"] for row in items),
            "means": means,
            "status": "complete" if len(scored) == questions * each else "partial",
        }
    run = {
        "schema": 1,
        "fingerprint": lm_eval_files.run_fingerprint(inputs),
        "fingerprint_inputs": inputs,
        "model": {"id": model, "slug": ledger.slug(model)},
        "engine": {"name": "icr-vllm"},
        "setting": text,
        "prompt": "ao",
        "gen_kwargs": {},
        "chat_template_sha": None,
        "system_prompt_sha": None,
        "truncation": {"side": "passages", "max_model_len": 8192},
        "tasks": tasks,
        "versions": {},
        "git": None,
        "started": None,
        "seconds": {"total": 1.0},
        "tokens": {"prompt": 0, "output": 0},
        "status": "complete",
    }
    if change:
        change(run)
    return ledger.write(root, run, [row for items in found.values() for row in items])
