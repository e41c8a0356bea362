"""`icr train grpo CONFIG`: GRPO with TRL's GRPOTrainer and our rewards."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError

from . import loop
from .checkpoint import SafeSave
from .config import Config
from .prepare import arguments, check, peft_config, prepare


def main(argv: list[str]) -> int:
    """Returns 0."""
    return loop.command("grpo", argv, train, __doc__ or "")


def train(config: Config, fresh: bool = False) -> Path:
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
    block = args.generation_batch_size // args.num_generations
    prepared = prepare(config, path, resume, block)
    recorder = Recorder(reward_function(config), Path(config.output), config.log_completions)
    trainer = Trainer(
        model=config.model,
        reward_funcs=recorder,
        args=args,
        train_dataset=prepared.dataset,
        processing_class=prepared.tokenizer,
        peft_config=peft_config(config),
        callbacks=[loop.callback(Path(config.output))],
    )
    return loop.run(trainer, config, prepared)


def reward_function(config: Config) -> Callable[..., list[float | None]]:
    """The reward a config names, with its judge where it needs one."""
    from .rewards import trl_reward

    reward = config.reward
    return trl_reward(reward["name"], reward.get("preset", "paper"), reward.get("options"), judge=reward.get("judge"))


class Recorder:
    """A reward function that also keeps a table of completions: `completions/step-00010-rank0.parquet`.

    Rows hold the row id instead of the prompt. A reward that is not a number counts as missing, and a batch without any
    reward stops the run: the judge is down, and training on would change nothing but the step count.
    """

    def __init__(self, reward: Callable[..., list[float | None]], run: Path, every: int) -> None:
        self.reward, self.every, self.folder = reward, every, run / "completions"
        self.__name__ = reward.__name__

    def __call__(self, *, completions: list[Any], trainer_state: Any = None, **columns: Any) -> list[float | None]:
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
                f"reward {self.__name__!r} gave no value for any of {len(rewards)} completions; the last checkpoint is "
                "whole: repair the judge and start the same command again"
            )
        step = getattr(trainer_state, "global_step", 0)
        if self.every and step % self.every == 0:
            self._write(step, columns, completions, rewards, extra)
        return rewards

    def _write(
        self, step: int, columns: dict[str, Any], completions: list[Any], rewards: list[float | None], extra: dict[str, list[Any]]
    ) -> None:  # fmt: skip
        import os

        import pyarrow as pa
        import pyarrow.parquet as pq

        from .rewards.for_trl import text_of

        self.folder.mkdir(parents=True, exist_ok=True)
        ids = columns.get("id") or [""] * len(completions)
        table = {"step": [step] * len(ids), "id": ids, "question": columns.get("question") or [""] * len(ids)}
        table |= {"completion": [text_of(c) for c in completions], "reward": rewards, **extra}
        pq.write_table(pa.table(table), self.folder / f"step-{step:05}-rank{os.environ.get('RANK', '0')}.parquet")
