"""The model card of a checkpoint: where it comes from, in words (README.md) and for programs (icr.json)."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from typing import Any

import yaml

from .config import Config

_PACKAGES = ("icr-tasks", "trl", "transformers", "torch", "accelerate", "peft", "vllm")


def record(config: Config, *, data_hash: str, order: str, step: int, metrics: dict[str, Any], truncation: str) -> dict[str, Any]:  # fmt: skip
    """What names this checkpoint; JSON-serialisable."""
    text = config.dump()
    return {
        "schema": 1,
        "base_model": config.model,
        "kind": config.kind,
        "step": step,
        "data_hash": data_hash,
        "order": order,
        "prompt": config.prompt,
        "reward": dict(config.reward) or None,
        "config_hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        "config": yaml.safe_load(text),
        "truncation": truncation,
        "metrics": {k: v for k, v in metrics.items() if isinstance(v, int | float)},
        "versions": {name: _version(name) for name in _PACKAGES if _version(name)},
    }


def card(found: dict[str, Any], name: str) -> str:
    """Markdown with the hub's YAML header. Local folders are named without their path."""
    local = found["base_model"].startswith(("/", ".", "~"))
    base = found["base_model"].rstrip("/").rpartition("/")[2] if local else found["base_model"]
    head: dict[str, Any] = {"library_name": "transformers", "tags": ["icr-tasks", "trl", found["kind"]]}
    if not local:
        head["base_model"] = base
    reward = found["reward"]
    rows = {
        "base model": base,
        "trained by": f"{found['kind'].upper()}, step {found['step']}",
        "reward": f"{reward['name']}, preset {reward.get('preset', 'paper')}" if reward else "none (supervised)",
        "prompt": found["prompt"],
        "data (manifest hash)": found["data_hash"],
        "data order": found["order"],
        "config hash": found["config_hash"],
        "truncation": found["truncation"],
    }
    table = "\n".join(f"| {k} | {v} |" for k, v in rows.items())
    shown = {k: v for k, v in found["config"].items() if k not in ("output", "data", "notes")}
    shown["model"] = base
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    adapter = (found["config"].get("lora") or {}).get("save") == "adapter"
    engine = (  # an adapter alone needs its base named
        f"lm_eval --model vllm --model_args pretrained={base},enable_lora=True,lora_local_path=FOLDER ..."
        if adapter
        else "lm_eval --model vllm --model_args pretrained=FOLDER --tasks icr_helmet_rag --apply_chat_template ..."
    )
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {name}\n\n| | |\n|---|---|\n{table}\n\n"
        f"Evaluate it with the prompt it was trained on:\n\n```\n{engine} \\\n"
        f"  --metadata '{json.dumps({'prompt': found['prompt']})}'\n```\n\n"
        f"Config:\n\n```yaml\n{yaml.safe_dump(shown, sort_keys=False)}```\n\nMade with {versions}.\n"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
