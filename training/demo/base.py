"""The demonstration's base model: random weights, taught by TRL's SFTTrainer to answer questions about a few passages."""

from __future__ import annotations

from pathlib import Path

from ..curves import HEIGHT, chart, page
from .rows import conversations
from .tiny import build


def train(folder: Path, *, seed: int, conversations_: int, passages: int, batch: int = 32) -> Path:
    """Make `folder` (a model with tokenizer), unless it is there. The loss is on the answers alone."""
    if (folder / "model.safetensors").is_file():
        return folder
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.manual_seed(seed)
    start = build(folder.with_name(f"{folder.name}-init"), seed)
    args = SFTConfig(
        output_dir=str(folder.with_name(f".{folder.name}")), seed=seed, num_train_epochs=1, max_length=None,
        per_device_train_batch_size=batch, learning_rate=3e-3, lr_scheduler_type="constant_with_warmup", warmup_steps=50,
        adam_beta2=0.98, weight_decay=0.01, max_grad_norm=1.0, assistant_only_loss=True, use_cpu=True, bf16=False,
        gradient_checkpointing=False, train_sampling_strategy="sequential", save_strategy="no", logging_steps=5,
        report_to="none", disable_tqdm=True, dataset_num_proc=None,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(start),
        args=args,
        train_dataset=Dataset.from_list(list(conversations(conversations_, passages, seed))),
        processing_class=AutoTokenizer.from_pretrained(start),
    )
    trainer.train()
    rows = [r for r in trainer.state.log_history if "loss" in r]
    lines = {name: [(r["step"], r[name]) for r in rows] for name in ("loss", "mean_token_accuracy")}
    charts = [
        chart(f"base model: {name}", {name: line}, top=HEIGHT * i) for i, (name, line) in enumerate(lines.items())
    ]
    building = folder.with_name(f"{folder.name}.part")
    trainer.save_model(str(building))
    (building / "curves.svg").write_text(page(charts), encoding="utf-8")
    building.rename(folder)
    return folder
