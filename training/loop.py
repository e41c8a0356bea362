"""What SFT and GRPO runs share around TRL's trainers: log file, curves, completed checkpoints, exact resume."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError

from . import card, checkpoint, curves
from .config import Config, load
from .prepare import Prepared, check


def command(kind: str, argv: list[str], train: Callable[[Config, bool], Path], about: str) -> int:
    """`icr train sft|grpo CONFIG [key=value ...]`."""
    parser = argparse.ArgumentParser(prog=f"icr train {kind}", description=about)
    parser.add_argument("config", help="a YAML file, or the name of one that ships (grpo_ao.yaml)")
    parser.add_argument("overrides", nargs="*", help="key=value, such as output=runs/a or trl.learning_rate=1e-5")
    parser.add_argument("--check", action="store_true", help="check config, data and run folder, then stop")
    parser.add_argument("--fresh", action="store_true", help="discard the run in the output folder and start over")
    args = parser.parse_intermixed_args(argv)
    config = load(args.config, args.overrides)
    if config.kind != kind:
        raise IcrError(f"{args.config} is a config for `icr train {config.kind}`")
    if args.check:
        path, resume = check(config)
        print(
            f"config, data ({path}) and run folder are in order; {f'would continue from {resume}' if resume else 'would start'}"
        )
        return 0
    train(config, args.fresh)
    return 0


def callback(run: Path) -> Any:
    """Writes metrics.jsonl at each log and curves.svg at each save and at the end."""
    from transformers import TrainerCallback

    class Log(TrainerCallback):
        """On the main process only."""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if state.is_world_process_zero and logs:
                row = {"step": state.global_step, **{k: v for k, v in logs.items() if isinstance(v, int | float)}}
                with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                (run / "curves.svg").write_text(curves.draw(curves.history(run)), encoding="utf-8")

        on_train_end = on_save

    return Log()


def finisher(config: Config, prepared: Prepared) -> Callable[[Path, Any], None]:
    """Completes a staged checkpoint: card, record, generation config, merged adapter."""

    def finish(folder: Path, trainer: Any) -> None:
        rows = [row for row in trainer.state.log_history if "loss" in row or "reward" in row]
        found = card.record(
            config,
            data_hash=prepared.data_hash,
            order=prepared.order.digest,
            step=trainer.state.global_step,
            metrics=rows[-1] if rows else {},
            truncation=prepared.truncation,
        )
        checkpoint.complete(
            folder,
            model=trainer.accelerator.unwrap_model(trainer.model),
            base=config.model,
            tokenizer=prepared.tokenizer,
            lora=config.lora,
            card=card.card(found, f"{Path(config.output).name}, {folder.name}"),
            record=json.dumps(found, indent=1),
        )

    return finish


def run(trainer: Any, config: Config, prepared: Prepared) -> Path:
    """Train to the end, continuing from the last checkpoint; the last step is always saved. Returns its folder."""
    out = Path(config.output)
    trainer.finish = finisher(config, prepared)
    if prepared.resume:
        print(f"continuing from {prepared.resume}", flush=True)
    trainer.train(resume_from_checkpoint=str(prepared.resume) if prepared.resume else None)
    last = checkpoint.latest(out)
    if checkpoint.step_of(last) != trainer.state.global_step if last else True:
        trainer._save_checkpoint(trainer.model, None)
        last = checkpoint.latest(out)
    assert last is not None
    print(f"{last}: {trainer.state.global_step} steps; curves in {out / 'curves.svg'}", flush=True)
    return last
