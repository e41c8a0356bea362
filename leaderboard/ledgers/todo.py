"""The command that completes a row, quoted so that a shell reads names as text only."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import Any


def command(head: dict[str, Any], tasks: Iterable[str]) -> str:
    """The lm_eval call for these tasks under a run's identity (`head` is its run.json), without machine
    flags."""
    inputs = head.get("fingerprint_inputs") or {}
    args = dict(inputs.get("model_args") or {})
    if "pretrained" in args:
        args["pretrained"] = head["model"][
            "id"
        ]  # a local folder is stored by name, paths stay on their machine
    flat = ",".join(f"{k}={v}" for k, v in args.items() if v is not None and not isinstance(v, dict | list))
    meta = {"setting": head["setting"]["text"], **({"prompt": head["prompt"]} if head.get("prompt") else {})}
    parts = ["lm_eval", "--tasks", ",".join(tasks), "--model", str(inputs.get("engine") or "icr-vllm")]
    parts += ["--model_args", flat or f"pretrained={head['model']['id']}"]
    if inputs.get("gen_kwargs_cli"):
        parts += ["--gen_kwargs", ",".join(f"{k}={v}" for k, v in inputs["gen_kwargs_cli"].items())]
    if inputs.get("chat"):
        parts += ["--apply_chat_template"]
    parts += ["--metadata", json.dumps(meta, separators=(",", ":")), "--log_samples", "--output_path", "out"]
    return shlex.join(parts)
