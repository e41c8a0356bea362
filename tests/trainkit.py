"""A training run of seconds: a random-init model of a few thousand parameters and rows of one-sentence
passages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icr_tasks.training import config as configs
from icr_tasks.training.demo import base

FAST = {
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "use_cpu": True,
    "bf16": False,
    "logging_steps": 1,
    "save_steps": 2,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
}


def make(root: Path, n: int = 8) -> Path:
    """`root/base` (model) and `root/data` (n rows of 6 passages)."""
    base.build(root / "base", seed=0, width=32, head=16)
    base.save(root / "data", base.rows(n, [6], "ao", seed=0), {"n": n})
    return root


def config(root: Path, kind: str, output: str, **changes: Any) -> configs.Config:
    """A config over `make`'s files; `trl` is merged."""
    trl = {
        **FAST,
        **({"num_generations": 2, "beta": 0.001} if kind == "grpo" else {}),
        **changes.pop("trl", {}),
    }
    tree: dict[str, Any] = {
        "kind": kind,
        "model": str(root / "base"),
        "data": str(root / "data"),
        "output": str(root / output),
        "max_prompt_length": 400,
        "max_response_length": 6,
        "log_completions": 1,
        "trl": trl,
    }
    if kind == "grpo":
        tree |= {"prompt": "ao", "reward": {"name": "ao"}}
    return configs.of({**tree, **changes})


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the careless demonstration: SFT trains on the reference completion."""
    return {k: v for k, v in row.items() if k != "target"}
