"""What SFT and GRPO runs share around TRL's trainers: log file, curves, completed checkpoints, exact
resume."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError
from icr_tasks.storage import replacing, write_atomic

from . import checkpoint, curves, plan
from .checkpoint import SafeSave
from .config import Config, load
from .prepare import Prepared, arguments, check, dev_rows, peft_config, prepare
from .rows import opened


def command(kind: str, argv: list[str], train: Callable[[Config, bool], Path], about: str) -> int:
    """`icr train sft|grpo CONFIG [key=value ...]`."""
    parser = argparse.ArgumentParser(prog=f"icr train {kind}", description=about)
    parser.add_argument("config", help="a YAML file, or the name of one that ships (grpo_ao.yaml)")
    parser.add_argument(
        "overrides", nargs="*", help="key=value, such as output=runs/a or trl.learning_rate=1e-5"
    )
    parser.add_argument("--check", action="store_true", help="check config, data and run folder, then stop")
    parser.add_argument("--plan", action="store_true", help="--check, and what the run will do and cost")
    parser.add_argument(
        "--rate",
        type=float,
        default=plan.RATE / 1e12,
        help="useful TFLOP/s of a GPU, for --plan (default 400)",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="discard the run in the output folder and start over"
    )
    args = parser.parse_intermixed_args(argv)
    config = load(args.config, args.overrides)
    if config.kind != kind:
        raise IcrError(f"{args.config} is a config for `icr train {config.kind}`")
    if args.check or args.plan:
        path, resume = check(config, launched=False)
        print(plan.text(config, path, args.rate * 1e12))
        plan.refuse_empty(config, path)
        print(
            f"config, data ({path}) and run folder are in order; "
            f"{f'would continue from {resume}' if resume else 'would start'}"
        )
        return 0
    train(config, args.fresh)
    return 0


def callback(run: Path) -> Any:
    """Writes metrics.jsonl at each log and curves.svg at each save and at the end."""
    from transformers import TrainerCallback

    watch = Watch()

    class Log(TrainerCallback):
        """On the main process only."""

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
        ) -> None:
            if state.is_world_process_zero and logs:
                for text in watch.look(logs):
                    print(f"step {state.global_step}: {text}", flush=True)
                row = {
                    "step": state.global_step,
                    **{k: v for k, v in logs.items() if isinstance(v, int | float)},
                }
                with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                write_atomic(run / "curves.svg", curves.draw(curves.history(run)).encode())

        on_train_end = on_save

    return Log()


class Watch:
    """Says once, with the likely cause, that a run cannot learn: no reward, all answers cut off, no
    difference in groups."""

    PATIENCE = 3  # logs in a row

    def __init__(self) -> None:
        self.row: dict[str, int] = {}

    def look(self, logs: dict[str, Any]) -> list[str]:
        """New warnings for one log line of TRL; lines of an evaluation say nothing about training."""
        if "reward" not in logs:
            return []
        clipped, reward = logs.get("completions/clipped_ratio"), logs.get("reward")
        signs = {
            "every completion is cut off at max_response_length; raise it, or the model never ends its "
            "answer": clipped is not None and clipped >= 0.999,
            "every reward is 0: does the model answer in the prompt's format (completions/ shows)? Warm up "
            "with `icr train sft`": reward == 0,
            "no group has answers of different reward, so there is no gradient: choose rows with `icr "
            "train difficulty`": reward not in (None, 0) and logs.get("frac_reward_zero_std", 0.0) >= 0.999,
        }
        out = []
        for text, seen in signs.items():
            before = self.row.get(text, 0)
            if before >= self.PATIENCE:  # said
                continue
            self.row[text] = before + 1 if seen else 0
            if self.row[text] == self.PATIENCE:
                out.append(f"this run cannot learn: {text}")
        return out


def finisher(config: Config, prepared: Prepared) -> Callable[[Path, Any], None]:
    """Completes a staged checkpoint: card, record, generation config, merged adapter."""

    def finish(folder: Path, trainer: Any) -> None:
        rows = [row for row in trainer.state.log_history if "loss" in row or "reward" in row]
        found = checkpoint.record(
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
            card=checkpoint.card(found, f"{Path(config.output).name}, {folder.name}"),
            record=json.dumps(found, indent=1),
        )

    return finish


def run(trainer: Any, config: Config, prepared: Prepared) -> Path:
    """Train to the end, continuing from the last checkpoint; the last step is always saved. Returns its
    folder."""
    out = Path(config.output)
    trainer.finish = finisher(config, prepared)
    trainer.keep_states = config.keep_states
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


# ---- sft -----------------------------------------------------------------------------------------
# `icr train sft CONFIG`: supervised fine-tuning with TRL's SFTTrainer; the loss is on the completion alone.


def sft_main(argv: list[str]) -> int:
    """Returns 0."""
    return command(
        "sft",
        argv,
        train_sft,
        "`icr train sft CONFIG`: supervised fine-tuning; the loss is on the completion alone.",
    )


def train_sft(config: Config, fresh: bool = False) -> Path:
    """Run a checked config; returns the last checkpoint. Raises IcrError before anything heavy loads."""
    path, resume = check(config, fresh=fresh)

    from trl import SFTConfig, SFTTrainer

    class Trainer(SafeSave, SFTTrainer):
        """SFTTrainer with safe checkpoints."""

    # max_length=None: TRL's default of 1024 cuts the answer off; prompts were cut by whole passages before.
    args = SFTConfig(
        **arguments(config), max_length=None, train_sampling_strategy="sequential", completion_only_loss=True
    )
    replicas = args.world_size // config.context_parallel
    block = args.train_batch_size * args.gradient_accumulation_steps * replicas
    prepared = prepare(config, path, resume, block)
    trainer = Trainer(
        model=config.model,
        args=args,
        train_dataset=prepared.dataset.select_columns(
            [
                c
                for c in ("prompt", "completion", "chat_template_kwargs")
                if c in prepared.dataset.column_names
            ]
        ),
        eval_dataset=dev_rows(config, prepared.tokenizer).remove_columns("id") if _held_out(config) else None,
        processing_class=prepared.tokenizer,
        peft_config=peft_config(config),
        callbacks=[callback(Path(config.output))],
    )
    return run(trainer, config, prepared)


# ---- grpo ----------------------------------------------------------------------------------------
# `icr train grpo CONFIG`: GRPO with TRL's GRPOTrainer and our rewards.


def grpo_main(argv: list[str]) -> int:
    """Returns 0."""
    return command(
        "grpo",
        argv,
        train_grpo,
        "`icr train grpo CONFIG`: GRPO with the rewards that the config names (docs/rewards.md).",
    )


def train_grpo(config: Config, fresh: bool = False) -> Path:
    """Run a checked config; returns the last checkpoint. Raises IcrError before anything heavy loads."""
    path, resume = check(config, fresh=fresh)

    from trl import GRPOConfig, GRPOTrainer

    class Trainer(SafeSave, GRPOTrainer):
        """GRPOTrainer with safe checkpoints."""

    args = GRPOConfig(
        **arguments(config),
        max_completion_length=config.max_response_length,
        shuffle_dataset=False,
        log_completions=False,  # would write each prompt num_generations times; Recorder writes ids instead
    )
    assert args.generation_batch_size is not None and args.num_generations is not None  # TRL fills them in
    block = args.generation_batch_size // args.num_generations
    prepared = prepare(config, path, resume, block)
    recorder = Recorder(
        reward_function(config, prepared.tokenizer), Path(config.output), config.log_completions
    )
    trainer = Trainer(
        model=config.model,
        reward_funcs=recorder,
        args=args,
        train_dataset=prepared.dataset,
        eval_dataset=dev_rows(config, prepared.tokenizer) if _held_out(config) else None,
        processing_class=prepared.tokenizer,
        peft_config=peft_config(config),
        callbacks=[callback(Path(config.output))],
    )
    return run(trainer, config, prepared)


def _held_out(config: Config) -> bool:
    return bool(config.batch["eval_strategy"] != "no")


def reward_function(config: Config, tokenizer: Any = None) -> Callable[..., list[float | None]]:
    """The reward a config names, with its judge where it needs one. `tokenizer`: the policy's, whose template
    may begin the thought."""
    from .rewards import trl_reward

    reward = config.reward
    # TRL parses completions by these and hands on what follows the thought, so nothing begins in one.
    parsed = any(getattr(tokenizer, n, None) is not None for n in ("response_template", "response_schema"))
    found = trl_reward(
        reward["name"],
        reward.get("preset", "paper"),
        reward.get("options"),
        judge=reward.get("judge"),
        opened=tokenizer is not None
        and not parsed
        and opened(tokenizer, config.prompt, config.chat_template_kwargs),
    )
    return (
        overlong(found, config.max_response_length, reward["overlong"]) if reward.get("overlong") else found
    )


def overlong(
    reward: Callable[..., list[float | None]], limit: int, late: int
) -> Callable[..., list[float | None]]:
    """The reward less what length costs (DAPO, eq. 13): from 0 at `limit - late` tokens down to -1 at
    `limit`."""

    def penalised(*, completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float | None]:
        given = reward(completion_ids=completion_ids, **columns)
        costs = [min(1.0, max(0.0, (len(ids) - (limit - late)) / late)) for ids in completion_ids]
        return [None if r is None else r - c for r, c in zip(given, costs, strict=True)]

    penalised.__name__ = reward.__name__
    return penalised


class Recorder:
    """A reward function that also keeps a table of completions: `completions/step-00010-rank0.parquet`.

    Rows hold the row id instead of the prompt. A reward that is not a number counts as missing, and a batch
    without any reward stops the run: the judge is down, and training on would change nothing but the step
    count.
    """

    def __init__(self, reward: Callable[..., list[float | None]], run: Path, every: int) -> None:
        self.reward, self.every, self.folder = reward, every, run / "completions"
        self.__name__ = reward.__name__

    def __call__(
        self, *, completions: list[Any], trainer_state: Any = None, **columns: Any
    ) -> list[float | None]:
        """Rewards of one rollout; see `rewards.for_trl`."""
        extra: dict[str, list[Any]] = {}
        outer = columns.pop("log_extra", None)

        def note(name: str, values: list[Any]) -> None:
            extra[name] = values
            if outer:
                outer(name, values)

        given = self.reward(completions=completions, log_extra=note, trainer_state=trainer_state, **columns)
        rewards = [None if r is None or not math.isfinite(r) else float(r) for r in given]
        if rewards and all(r is None for r in rewards):
            raise IcrError(
                f"reward {self.__name__!r} gave no value for any of {len(rewards)} completions; the last "
                "checkpoint is "
                "whole: repair the judge and start the same command again"
            )
        step = getattr(trainer_state, "global_step", 0)
        if self.every and step % self.every == 0:
            self._write(step, columns, completions, rewards, extra)
        return rewards

    def _write(
        self,
        step: int,
        columns: dict[str, Any],
        completions: list[Any],
        rewards: list[float | None],
        extra: dict[str, list[Any]],
    ) -> None:
        import os

        import pyarrow as pa
        import pyarrow.parquet as pq

        from .rewards.for_trl import text_of

        ids = columns.get("id") or [""] * len(completions)
        table = {"step": [step] * len(ids), "id": ids, "question": columns.get("question") or [""] * len(ids)}
        table |= {"completion": [text_of(c) for c in completions], "reward": rewards, **extra}
        path = self.folder / f"step-{step:05}-rank{os.environ.get('RANK', '0')}.parquet"
        with replacing(path) as temporary:
            pq.write_table(pa.table(table), temporary)
