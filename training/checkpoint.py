"""Checkpoints that are whole or not there, and that lm_eval loads as they are.

A checkpoint is written to `.saving/` and renamed. A full disk or a kill while saving leaves the previous ones
untouched.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from icr_tasks.errors import IcrError

from .config import Config

# ---- card ----------------------------------------------------------------------------------------
# The model card of a checkpoint: where it comes from, in words (README.md) and for programs (icr.json).

_PACKAGES = ("icr-tasks", "trl", "transformers", "torch", "accelerate", "peft", "vllm")


def record(
    config: Config, *, data_hash: str, order: str, step: int, metrics: dict[str, Any], truncation: str
) -> dict[str, Any]:
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
        "chat_template_kwargs": dict(config.chat_template_kwargs),
        "metrics": {k: v for k, v in metrics.items() if isinstance(v, int | float)},
        "versions": {name: _version(name) for name in _PACKAGES if _version(name)},
    }


_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as max_lora_rank; its default is 16


def rank(lora: dict[str, Any]) -> int:
    """The least `max_lora_rank` of vLLM that holds the adapter; its own rank where none does, for vLLM to name."""
    own = int(lora.get("r", 64))
    return next((n for n in _RANKS if n >= own), own)


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
        "reward": f"{reward['name']}, preset {reward.get('preset', 'paper')}"
        if reward
        else "none (supervised)",
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
    more = f",max_lora_rank={held}" if adapter and (held := rank(found["config"]["lora"])) > 16 else ""
    engine = (  # an adapter alone needs its base named
        f"lm_eval --model vllm --model_args pretrained={base},enable_lora=True,lora_local_path=FOLDER{more} ..."
        if adapter
        else "lm_eval --model vllm --model_args pretrained=FOLDER --tasks icr_helmet_rag "
        "--apply_chat_template ..."
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


STAGING = ".saving"
ADAPTER = "adapter"
MASTER = "master"
# What only a run that goes on needs, with any of TRL's, FSDP's and DeepSpeed's names.
_STATES = (
    MASTER,
    "optimizer*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "pytorch_model_fsdp*",
    "global_step*",
)


def slim(folder: Path) -> None:
    """Leave the model and its papers; an older checkpoint is evaluated, never continued."""
    for pattern in _STATES:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def resumable(folder: Path) -> bool:
    """Whether a run can go on from this checkpoint."""
    return any(folder.glob("optimizer*")) or any(folder.glob("global_step*"))


def step_of(folder: Path) -> int:
    """The step in `checkpoint-<step>`; -1 for other names."""
    head, _, tail = folder.name.rpartition("-")
    return int(tail) if head == "checkpoint" and tail.isdigit() else -1


def all_of(run: Path) -> list[Path]:
    """Checkpoints of a run in order of steps."""
    return sorted((p for p in run.glob("checkpoint-*") if step_of(p) >= 0 and p.is_dir()), key=step_of)


def latest(run: Path) -> Path | None:
    """The last checkpoint, or None."""
    return next(reversed(all_of(run)), None)


def clean(run: Path) -> None:
    """Remove what an interrupted save left behind."""
    shutil.rmtree(run / STAGING, ignore_errors=True)


class SafeSave:
    """Mixin for TRL trainers. `finish(folder, trainer)`, set after construction, completes a staged
    checkpoint.

    Overrides three private methods of transformers' Trainer, which takes a half-written folder for a
    checkpoint (github.com/huggingface/transformers: pull 27820, issue 35782); `harness.hooks.PATCHES` lists
    and checks them.
    """

    finish: Any = None
    keep_states: int = 0
    _staging: bool = False

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's card for the run folder is replaced by our card in each checkpoint."""

    def _get_output_dir(self, trial: Any, *args: Any, **kwargs: Any) -> str:
        folder = super()._get_output_dir(trial, *args, **kwargs)  # type: ignore[misc]
        return str(Path(folder) / STAGING) if self._staging else folder

    def _save_checkpoint(self, model: Any, trial: Any, *args: Any, **kwargs: Any) -> None:
        run = Path(super()._get_output_dir(trial))  # type: ignore[misc]
        name = f"checkpoint-{self.state.global_step}"  # type: ignore[attr-defined]
        first = self.args.should_save  # type: ignore[attr-defined]
        if first:
            clean(run)
        self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]
        self._staging = True
        try:
            super()._save_checkpoint(model, trial, *args, **kwargs)  # type: ignore[misc]
            self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]
            if first:
                if self.finish is not None:
                    self.finish(run / STAGING / name, self)
                shutil.rmtree(run / name, ignore_errors=True)  # the same step, saved before a resume
                (run / STAGING / name).rename(run / name)
        except Exception as error:
            if not _disk(error):
                raise
            clean(run)
            before = latest(run)
            kept = (
                f"{before.name} is whole; free space and start the same command again"
                if before
                else "none exists yet"
            )
            raise IcrError(
                f"cannot save {name} in {run}: {error}. The previous checkpoint: {kept}"
            ) from error
        finally:
            self._staging = False
        if first:
            clean(run)
            self._rotate(run)
        self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]

    def _rotate(self, run: Path) -> None:
        limit = self.args.save_total_limit  # type: ignore[attr-defined]
        for old in all_of(run)[: -limit if limit else 0]:
            shutil.rmtree(old, ignore_errors=True)
        for old in all_of(run)[: -self.keep_states or 0]:
            slim(old)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        """From `adapter/`, beside merged weights, or from `master/`, the weights as they were trained, where
        they are."""
        folder = Path(resume_from_checkpoint)
        inner = next((folder / name for name in (ADAPTER, MASTER) if (folder / name).is_dir()), folder)
        super()._load_from_checkpoint(str(inner), *args, **kwargs)  # type: ignore[misc]


def _disk(error: BaseException) -> bool:
    """Whether saving failed for want of space or rights: OSError, or what torch and safetensors make of
    it."""
    words = (
        "no space",
        "enforce fail",
        "disk quota",
        "file write failed",
        "i/o error",
        "os error 28",
        "storageerror",
    )
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, OSError) or any(word in text for word in words)


def complete(
    folder: Path, *, model: Any, base: str, tokenizer: Any, lora: dict[str, Any], card: str, record: str
) -> None:
    """Add what evaluation needs: generation config, tokenizer with chat template, card; merge a LoRA adapter.

    With lora.save "merged" the root is an ordinary model and the adapter lies in `adapter/`. With "adapter"
    the root is the adapter alone, which is small and needs its base named: `peft=` for hf, `lora_local_path=`
    for vLLM.
    """
    tokenizer.save_pretrained(folder)
    if lora and lora.get("save", "merged") == "merged":
        _merge(folder, base)
    elif not lora:
        cast(folder, dtype_of(base))
    generation = getattr(model, "generation_config", None)
    if generation is not None and not (folder / "generation_config.json").is_file():
        generation.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "icr.json").write_text(record, encoding="utf-8")


def dtype_of(base: str) -> str:
    """The dtype a base model's config names: "bfloat16", or "float32" where it names none."""
    from transformers import AutoConfig

    found = getattr(AutoConfig.from_pretrained(base), "dtype", None)
    return str(found).removeprefix("torch.") if found is not None else "float32"


def cast(folder: Path, dtype: str) -> None:
    """Give the saved weights the base model's dtype, so that base and checkpoint are evaluated alike.

    Trainers hold and save float32. Where nothing else does (FSDP and DeepSpeed write states of their own),
    the float32 weights stay in `master/` for a run that goes on.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text())
    if config.get("dtype", config.get("torch_dtype")) == dtype:
        return
    own = any(folder.glob("pytorch_model_fsdp*")) or any(folder.glob("global_step*"))
    files = sorted(folder.glob("model*.safetensors"))
    if not own:
        (folder / MASTER).mkdir()
        for path in (folder / "config.json", *folder.glob("model*.safetensors.index.json")):
            shutil.copy(path, folder / MASTER / path.name)
    for path in files:
        with safe_open(path, "pt") as file:
            names, about = list(file.keys()), file.metadata()
            tensors = {name: file.get_tensor(name) for name in names}
        kind = getattr(torch, dtype)
        small = {n: t.to(kind) if t.is_floating_point() else t for n, t in tensors.items()}
        if own:
            path.unlink()
        else:
            path.rename(folder / MASTER / path.name)
        save_file(small, path, metadata=about)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        body = json.loads(index.read_text())
        body["metadata"]["total_size"] = sum(p.stat().st_size for p in folder.glob("model*.safetensors"))
        index.write_text(json.dumps(body, indent=2))
    config["dtype"] = dtype
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def _merge(folder: Path, base: str) -> None:
    """Move the adapter to `adapter/` and write base + adapter to the root. On the CPU, in the base model's
    own dtype."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    inner = folder / ADAPTER
    inner.mkdir()
    for path in [*folder.glob("adapter_*")]:
        path.rename(inner / path.name)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    PeftModel.from_pretrained(plain, str(inner)).merge_and_unload().save_pretrained(folder)
