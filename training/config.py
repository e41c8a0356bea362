"""Training configs: YAML, checked in full before anything heavy is imported.

extends: grpo_paper.yaml       # optional; a file of the same folder, or one that ships with this package
kind: grpo
model: Qwen/Qwen2.5-7B-Instruct-1M
data: data/                    # a folder made by `icr train data`
output: runs/ao
prompt: ao
reward: {name: ao, preset: paper}
trl: {learning_rate: 1.0e-6, num_generations: 5}
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from icr_tasks.checked import read_yaml
from icr_tasks.errors import IcrError, unknown

from . import trl_options as trl_fields
from .rows import ORDERS, RULES

SHIPPED = Path(__file__).parent / "configs"
KINDS = ("grpo", "sft")
_REWARD_KEYS = ("name", "preset", "options", "judge", "overlong")
_LORA_KEYS = ("r", "alpha", "dropout", "target_modules", "save")
_BATCH = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "steps_per_generation",
    "generation_batch_size",
)
# A change of these does not change what is learned: a run may be continued with other values.
HARMLESS = (
    "notes",
    "output",
    "log_completions",
    "dev",
    "keep_states",
    "trl.logging_steps",
    "trl.save_total_limit",
    "trl.report_to",
    "trl.run_name",
    "trl.dataloader_num_workers",
    "trl.logging_first_step",
)


@dataclass(frozen=True)
class Config:
    """One training run. Lengths are tokens; `devices` is the number of processes its batch sizes are written
    for."""

    kind: str
    model: str
    data: str
    output: str
    prompt: str = "ao"
    reward: dict[str, Any] = field(default_factory=dict)
    epochs: int = 1
    seed: int = 42
    limit: int | None = None
    devices: int = 1
    max_prompt_length: int = 32768
    max_response_length: int = 2048
    truncation: str = "keep_gold"
    order: str = "shuffled"
    lora: dict[str, Any] = field(default_factory=dict)
    log_completions: int = 10
    dev: int = 64  # rows of dev.parquet that trl.eval_strategy looks at
    keep_states: int = 0  # newest checkpoints that keep the optimizer, to go on from; 0: all
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)  # {enable_thinking: false}
    trl: dict[str, Any] = field(default_factory=dict)
    notes: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of training", str(self.kind), KINDS)
        for name in ("epochs", "devices", "max_prompt_length", "max_response_length", "dev"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise IcrError(f"{name} is {getattr(self, name)!r}; it must be a whole number of at least 1")
        if self.truncation not in RULES:
            raise unknown("truncation", str(self.truncation), RULES)
        if self.order not in ORDERS:
            raise unknown("order of the data", str(self.order), ORDERS)
        known("reward option", self.reward, _REWARD_KEYS)
        known("lora option", self.lora, _LORA_KEYS)
        if self.lora.get("save", "merged") not in ("merged", "adapter"):
            raise unknown("lora.save", str(self.lora["save"]), ("merged", "adapter"))
        object.__setattr__(self, "trl", trl_fields.checked(self.kind, self.trl))
        prompt(self)
        devices(self)
        if self.kind == "grpo":
            reward(self)
            batches(self)

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer steps made with one batch of generated completions."""
        given = {
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "num_iterations": 1,
            **self.trl,
        }
        steps = given.get("steps_per_generation")
        if steps is None and given.get("generation_batch_size"):
            steps = given["generation_batch_size"] // (given["per_device_train_batch_size"] * self.devices)
        accumulation = given["gradient_accumulation_steps"]
        return max(1, (steps or accumulation) * given["num_iterations"] // accumulation)

    @property
    def prompts_per_rollout(self) -> int:
        """Different prompts in one batch of generated completions."""
        given = {
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "num_generations": 8,
            **self.trl,
        }
        size = given["per_device_train_batch_size"] * self.devices
        steps = given.get("steps_per_generation") or given["gradient_accumulation_steps"]
        return (given.get("generation_batch_size") or size * steps) // given["num_generations"]

    def dump(self) -> str:
        """YAML that `load` reads back to an equal config."""
        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config; `overrides` are `key=value` or `trl.key=value`. Raises IcrError naming the nearest known
    key."""
    tree = read(Path(path))
    before = tree.get("devices", 1)
    for text in overrides:
        key, mark, value = text.partition("=")
        if not mark:
            raise IcrError(f"{text!r} is not an override; write key=value, such as trl.learning_rate=1e-6")
        tree = merge(tree, _nested(key.split("."), read_yaml(value, repr(text))))
    named = {text.partition("=")[0] for text in overrides}
    if tree.get("devices", 1) != before and not named & {f"trl.{key}" for key in _BATCH}:
        raise IcrError(shrunk(tree, before))
    return of(tree)


def shrunk(tree: Mapping[str, Any], before: int) -> str:
    """What another number of devices does to the batches, and the overrides that keep them, as near as whole
    groups of completions allow."""
    trl, devices = tree.get("trl") or {}, tree["devices"]
    steps = {k: trl[k] for k in ("gradient_accumulation_steps", "steps_per_generation") if k in trl}
    least = min(steps.values(), default=1)
    updates = {k: n // least for k, n in steps.items()} or {"gradient_accumulation_steps": 1}
    group = trl.get("num_generations", 8) if tree.get("kind") == "grpo" else 1
    unit = group // math.gcd(group, trl.get("per_device_train_batch_size", 8) * devices)
    most = max(1, round(least * before / devices / unit)) * unit
    keep = " ".join(f"trl.{k}={most * n}" for k, n in updates.items())
    exact = most * devices == least * before
    return (
        f"devices={devices} instead of {before} would make every batch {before / devices:g} times smaller; "
        f"say what you want: {keep} "
        f"{'keeps the batches' if exact else f'comes nearest ({most * devices / (least * before):.0%} of them)'} "
        "(name one of these keys to confirm any other)"
    )


def of(tree: Mapping[str, Any]) -> Config:
    """A config from its mapping. Raises IcrError for unknown and missing keys."""
    names = [f.name for f in fields(Config)]
    kind = tree.get("kind")
    of_trl = trl_fields.known(str(kind)) if kind in KINDS and set(tree) - set(names) else {}
    also = trl_fields.RENAMED | {name: f"trl.{name}" for name in of_trl}
    known("config key", tree, names, also=also)
    missing = [name for name in ("kind", "model", "data", "output") if not tree.get(name)]
    if missing:
        raise IcrError(f"the config has no {', '.join(missing)}")
    for name in ("reward", "lora", "chat_template_kwargs", "trl"):
        if not isinstance(tree.get(name) or {}, Mapping):
            raise IcrError(f"{name} is {tree[name]!r}; it must be a mapping")
    empty: dict[str, Any] = {"reward": {}, "lora": {}, "chat_template_kwargs": {}, "trl": {}, "notes": ""}
    values: dict[str, Any] = {k: empty.get(k) if v is None else v for k, v in tree.items()}
    return Config(**values)


def difference(old: Config, new: Config) -> list[str]:
    """Keys in which two configs differ and which change what is learned."""
    flat_old, flat_new = (_flat(asdict(c)) for c in (old, new))
    keys = sorted(flat_old.keys() | flat_new.keys())
    return [k for k in keys if flat_old.get(k) != flat_new.get(k) and k not in HARMLESS]


def main(argv: list[str]) -> int:
    """`icr train configs [NAME]`: the shipped configs and their folder, or one of them with everything it
    extends."""
    if argv and argv[0] not in ("-h", "--help"):
        print(load(argv[0], argv[1:]).dump(), end="")
        return 0
    print(f"in {SHIPPED}:")
    for path in sorted(SHIPPED.rglob("*.yaml")):
        print(f"  {path.relative_to(SHIPPED)}")
    return 0


def world_size() -> int:
    """Processes of this launch (accelerate and torchrun set WORLD_SIZE)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file with what it extends, unchecked. IcrError when there is none, or it is no mapping."""
    found = path if path.is_file() else SHIPPED / path.name
    if not found.is_file():
        shipped = sorted(p.name for p in SHIPPED.glob("*.yaml"))
        near = difflib.get_close_matches(path.name, shipped, n=1)
        raise IcrError(
            f"no config {path}{f'; did you mean {near[0]}' if near else ''}? Shipped: {', '.join(shipped)}"
        )
    if found.resolve() in seen:
        raise IcrError(f"{path} extends itself")
    try:
        tree = read_yaml(found.read_text(encoding="utf-8"), found) or {}
    except UnicodeDecodeError as error:
        raise IcrError(f"{found} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise IcrError(f"{found} is not a mapping of keys to values")
    base = tree.pop("extends", None)
    if base is None:
        return tree
    beside = found.parent / base
    return merge(read(beside if beside.is_file() else Path(base), (*seen, found.resolve())), tree)


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins; mappings are merged key by key, except `reward`, which belongs together."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if both else value
    return out


def _nested(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nested(keys[1:], value)}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and value
        out |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return out


# ---- config checks -------------------------------------------------------------------------------
# What a config is refused for before anything heavy loads: prompt, reward, batch arithmetic, names that do
# not exist.


def known(
    kind: str, given: Mapping[str, Any], names: Sequence[str], also: Mapping[str, str] | None = None
) -> None:
    """IcrError for names that are not known; `also` says what replaces former ones."""
    for name in given:
        if name not in names:
            if also and name in also:
                raise IcrError(f"unknown {kind} {name!r}; set {also[name]}")
            raise unknown(kind, str(name), names)


def prompt(config: Config) -> None:
    """The prompt exists, and SFT can make a completion for it."""
    from icr_tasks.benchmarks import base

    base.get("helmet_rag", config.prompt)
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
    late = config.reward.get("overlong", 0)
    if not isinstance(late, int) or not 0 <= late < config.max_response_length:
        raise IcrError(
            f"reward.overlong is {late!r}; it is how many of the last tokens of max_response_length cost "
            "reward (DAPO)"
        )
    asked = config.prompt.removesuffix("_code")
    if name != asked and (name not in ("ao", "hybrid") or asked not in registry.NAMES):
        raise IcrError(
            f"reward {name!r} reads an answer in the format of prompt {name!r}, not {config.prompt!r}"
        )
    judge = config.reward.get("judge") or {}
    if judge and name not in registry.JUDGED:
        raise IcrError(
            f"reward {name!r} asks no judge; drop reward.judge, or use {' or '.join(registry.JUDGED)}"
        )
    if name in registry.JUDGED:
        from icr_tasks.metrics.judge.config import JudgeConfig

        if not judge.get("base_url"):
            raise IcrError(
                f"reward {name!r} needs reward.judge.base_url, the address of an OpenAI-compatible server"
            )
        if "api_key" in judge:
            raise IcrError(
                "reward.judge.api_key would be copied into every checkpoint; name a variable in api_key_env"
            )
        JudgeConfig.parse({f"judge_{key}": value for key, value in judge.items()})


def devices(config: Config) -> None:
    """What TRL and vLLM refuse only after the model has been loaded."""
    given = config.trl
    if given.get("bf16") and given.get("fp16"):
        raise IcrError("trl.bf16 and trl.fp16 exclude each other; keep bf16 on a GPU that has it")
    if given.get("use_vllm") and given.get("vllm_mode", "colocate") == "colocate":
        split = given.get("vllm_tensor_parallel_size", 1)
        if config.devices % split:
            raise IcrError(
                f"trl.vllm_tensor_parallel_size {split} does not divide devices {config.devices}; set it to "
                "1, or use more "
                "devices"
            )
    if "chat_template_kwargs" in given:
        raise IcrError(
            "set chat_template_kwargs at the top level: lengths are counted with them and cards record them"
        )
    if given.get("eval_strategy", "no") != "no" and config.kind == "grpo":
        group = given.get("num_generations_eval") or given.get("num_generations", 8)
        size = given.get("per_device_eval_batch_size", 8) * config.devices
        if size % group:
            raise IcrError(
                f"an evaluation batch of {size} completions is no multiple of {group} a prompt; set "
                f"trl.per_device_eval_batch_size={group}"
            )


def batches(config: Config) -> None:
    """TRL's arithmetic, before its own imports: whole groups, whole rollouts, checkpoints between
    rollouts."""
    given = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_generations": 8,
        **config.trl,
    }
    per_pass = given["per_device_train_batch_size"] * config.devices
    if given.get("generation_batch_size") and given.get("steps_per_generation"):
        raise IcrError("set trl.generation_batch_size or trl.steps_per_generation, not both")
    size = given.get("generation_batch_size") or per_pass * (
        given.get("steps_per_generation") or given["gradient_accumulation_steps"]
    )
    if given["num_generations"] < 2:
        raise IcrError("trl.num_generations must be at least 2: advantages are relative to the group")
    if size % given["num_generations"]:
        raise IcrError(
            f"a rollout of {size} completions is no multiple of num_generations {given['num_generations']}"
        )
    if size % per_pass:
        raise IcrError(f"generation_batch_size {size} is no multiple of {per_pass} (per device x devices)")
    every, updates = given.get("save_steps", 500), config.updates_per_rollout
    if given.get("save_strategy", "steps") == "steps" and every % updates:
        raise IcrError(
            f"save_steps {every} falls inside a rollout, which serves {updates} updates: a resumed run "
            "would generate it "
            f"again; use a multiple of {updates}"
        )
    if (
        window := given.get("vllm_max_model_length")
    ) and window < config.max_prompt_length + config.max_response_length:
        raise IcrError(
            f"vllm_max_model_length {window} is shorter than prompt + response "
            f"({config.max_prompt_length} + {config.max_response_length})"
        )
