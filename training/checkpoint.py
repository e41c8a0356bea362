"""Checkpoints that are whole or not there, and that lm_eval loads as they are.

A checkpoint is written to `.saving/` and renamed. A full disk or a kill while saving leaves the previous ones untouched.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError

STAGING = ".saving"
ADAPTER = "adapter"


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
    """Mixin for TRL trainers. `finish(folder, trainer)`, set after construction, completes a staged checkpoint."""

    finish: Any = None
    _staging: bool = False

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's card for the run folder is replaced by our card in each checkpoint."""

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)  # type: ignore[misc]
        return str(Path(folder) / STAGING) if self._staging else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        run = Path(super()._get_output_dir(trial))  # type: ignore[misc]
        name = f"checkpoint-{self.state.global_step}"  # type: ignore[attr-defined]
        first = self.args.should_save  # type: ignore[attr-defined]
        if first:
            clean(run)
        self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]
        self._staging = True
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
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
                f"{before.name} is whole; free space and start the same command again" if before else "none exists yet"
            )
            raise IcrError(f"cannot save {name} in {run}: {error}. The previous checkpoint: {kept}") from error
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

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """An adapter lives beside merged weights in `adapter/`: resume from it, not from the merged model."""
        inner = Path(resume_from_checkpoint) / ADAPTER
        super()._load_from_checkpoint(str(inner) if inner.is_dir() else resume_from_checkpoint, model)  # type: ignore[misc]


def _disk(error: BaseException) -> bool:
    """Whether saving failed for want of space or rights: OSError, or what torch and safetensors make of it."""
    words = ("no space", "enforce fail", "disk quota", "file write failed", "i/o error", "os error 28", "storageerror")
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, OSError) or any(word in text for word in words)


def complete(
    folder: Path, *, model: Any, base: str, tokenizer: Any, lora: dict[str, Any], card: str, record: str
) -> None:
    """Add what evaluation needs: generation config, tokenizer with chat template, card; merge a LoRA adapter.

    With lora.save "merged" the root is an ordinary model and the adapter lies in `adapter/`. With "adapter" the root is the
    adapter alone, which is small and needs its base named: `peft=` for hf, `lora_local_path=` for vLLM.
    """
    tokenizer.save_pretrained(folder)
    if lora and lora.get("save", "merged") == "merged":
        _merge(folder, base)
    generation = getattr(model, "generation_config", None)
    if generation is not None and not (folder / "generation_config.json").is_file():
        generation.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "icr.json").write_text(record, encoding="utf-8")


def _merge(folder: Path, base: str) -> None:
    """Move the adapter to `adapter/` and write base + adapter to the root. On the CPU, in the base model's own dtype."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    inner = folder / ADAPTER
    inner.mkdir()
    for path in [*folder.glob("adapter_*")]:
        path.rename(inner / path.name)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    PeftModel.from_pretrained(plain, str(inner)).merge_and_unload().save_pretrained(folder)
