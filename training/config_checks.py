"""What a config is refused for before anything heavy loads: prompt, reward, batch arithmetic, names that do not exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icr_tasks.errors import IcrError, unknown

if TYPE_CHECKING:
    from .config import Config


def known(kind: str, given: Mapping[str, Any], names: Sequence[str], also: Mapping[str, str] | None = None) -> None:
    """IcrError for names that are not known; `also` says what replaces former ones."""
    for name in given:
        if name not in names:
            if also and name in also:
                raise IcrError(f"unknown {kind} {name!r}; set {also[name]}")
            raise unknown(kind, str(name), names)


def prompt(config: Config) -> None:
    """The prompt exists, and SFT can make a completion for it."""
    from icr_tasks.context import prompts

    prompts.get("helmet_rag", config.prompt)
    if config.kind == "sft" and config.prompt.startswith("judge"):
        raise IcrError("prompt 'judge' has no reference completions for SFT; use ao, id, idc or idq")


def reward(config: Config) -> None:
    """The reward exists, reads what the prompt asks for, and has its judge."""
    from .rewards import registry

    name, preset = config.reward.get("name"), config.reward.get("preset", "paper")
    if not name:
        raise IcrError(f"the config has no reward.name; one of {', '.join(registry.NAMES)}")
    if name not in registry.NAMES:
        raise unknown("reward", str(name), registry.NAMES)
    registry.options_of(config.reward.get("options"), preset)
    if name not in registry.PRESETS[preset]:
        raise IcrError(f"preset {preset!r} has no reward {name!r}; use preset 'paper'")
    asked = config.prompt.removesuffix("_code")
    if name != asked and (name not in ("ao", "hybrid") or asked not in registry.NAMES):
        raise IcrError(f"reward {name!r} reads an answer in the format of prompt {name!r}, not {config.prompt!r}")
    judge = config.reward.get("judge") or {}
    if judge and name not in registry.JUDGED:
        raise IcrError(f"reward {name!r} asks no judge; drop reward.judge, or use {' or '.join(registry.JUDGED)}")
    if name in registry.JUDGED:
        from icr_tasks.metrics.judge.config import JudgeConfig

        if not judge.get("base_url"):
            raise IcrError(f"reward {name!r} needs reward.judge.base_url, the address of an OpenAI-compatible server")
        if "api_key" in judge:
            raise IcrError("reward.judge.api_key would be copied into every checkpoint; name a variable in api_key_env")
        JudgeConfig.parse({f"judge_{key}": value for key, value in judge.items()})


def batches(config: Config) -> None:
    """TRL's arithmetic, before its own imports: whole groups, whole rollouts, checkpoints between rollouts."""
    given = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_generations": 8, **config.trl}
    per_pass = given["per_device_train_batch_size"] * config.devices
    if given.get("generation_batch_size") and given.get("steps_per_generation"):
        raise IcrError("set trl.generation_batch_size or trl.steps_per_generation, not both")
    size = given.get("generation_batch_size") or per_pass * (
        given.get("steps_per_generation") or given["gradient_accumulation_steps"]
    )
    if given["num_generations"] < 2:
        raise IcrError("trl.num_generations must be at least 2: advantages are relative to the group")
    if size % given["num_generations"]:
        raise IcrError(f"a rollout of {size} completions is no multiple of num_generations {given['num_generations']}")
    if size % per_pass:
        raise IcrError(f"generation_batch_size {size} is no multiple of {per_pass} (per device x devices)")
    every, updates = given.get("save_steps", 500), config.updates_per_rollout
    if given.get("save_strategy", "steps") == "steps" and every % updates:
        raise IcrError(
            f"save_steps {every} falls inside a rollout, which serves {updates} updates: a resumed run would generate it "
            f"again; use a multiple of {updates}"
        )
    if (
        window := given.get("vllm_max_model_length")
    ) and window < config.max_prompt_length + config.max_response_length:
        raise IcrError(
            f"vllm_max_model_length {window} is shorter than prompt + response "
            f"({config.max_prompt_length} + {config.max_response_length})"
        )
