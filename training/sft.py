"""`icr train sft CONFIG`: supervised fine-tuning with TRL's SFTTrainer; the loss is on the completion alone."""

from __future__ import annotations

from pathlib import Path

from . import loop
from .checkpoint import SafeSave
from .config import Config
from .prepare import arguments, check, peft_config, prepare


def main(argv: list[str]) -> int:
    """Returns 0."""
    return loop.command("sft", argv, train, __doc__ or "")


def train(config: Config, fresh: bool = False) -> Path:
    """Run a checked config; returns the last checkpoint. Raises IcrError before anything heavy loads."""
    path, resume = check(config, fresh=fresh)

    from trl import SFTConfig, SFTTrainer

    class Trainer(SafeSave, SFTTrainer):
        """SFTTrainer with safe checkpoints."""

    # max_length=None: TRL's default of 1024 cuts the answer off; prompts were cut by whole passages before.
    args = SFTConfig(
        **arguments(config), max_length=None, train_sampling_strategy="sequential", completion_only_loss=True
    )
    block = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    prepared = prepare(config, path, resume, block)
    trainer = Trainer(
        model=config.model,
        args=args,
        train_dataset=prepared.dataset.select_columns(["prompt", "completion"]),
        processing_class=prepared.tokenizer,
        peft_config=peft_config(config),
        callbacks=[loop.callback(Path(config.output))],
    )
    return loop.run(trainer, config, prepared)
