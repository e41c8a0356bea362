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

from . import checks
from . import trl_options as trl_fields
from .rewards.match import Options
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
# What TRL takes where a config says nothing.
DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_iterations": 1,
    "num_generations": 8,
    "save_steps": 500,
    "save_strategy": "steps",
    "eval_strategy": "no",
    "vllm_mode": "colocate",
    "vllm_tensor_parallel_size": 1,
}
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
    context_parallel: int = 1  # processes that share one sequence (SFT)
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
        least = dict.fromkeys(
            ("epochs", "devices", "context_parallel", "max_prompt_length", "max_response_length", "dev"), 1
        )
        least |= {"seed": 0, "keep_states": 0, "log_completions": 0} | (
            {} if self.limit is None else {"limit": 1}
        )
        for name, most in least.items():
            whole(name, getattr(self, name), most)
        if self.truncation not in RULES:
            raise unknown("truncation", str(self.truncation), RULES)
        if self.order not in ORDERS:
            raise unknown("order of the data", str(self.order), ORDERS)
        known("reward option", self.reward, _REWARD_KEYS)
        known("lora option", self.lora, _LORA_KEYS)
        if self.lora.get("save", "merged") not in ("merged", "adapter"):
            raise unknown("lora.save", str(self.lora["save"]), ("merged", "adapter"))
        whole("lora.r", self.lora.get("r", 1), 1)
        for name in ("alpha", "dropout"):
            if isinstance(value := self.lora.get(name, 0), bool) or not isinstance(value, int | float):
                raise IcrError(f"lora.{name} is {value!r}; it must be a number")
        object.__setattr__(self, "trl", trl_fields.checked(self.kind, self.trl))
        checks.prompt(self)
        checks.devices(self)
        if self.kind == "grpo":
            checks.reward(self)
            checks.batches(self)

    @property
    def batch(self) -> dict[str, Any]:
        """The `trl:` block with TRL's defaults for what the arithmetic of batches and checkpoints needs."""
        return {**DEFAULTS, **self.trl}

    @property
    def replicas(self) -> int:
        """Processes that see different rows: what batch sizes are multiplied with."""
        return self.devices // self.context_parallel

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer steps made with one batch of generated completions."""
        given = self.batch
        steps = given.get("steps_per_generation")
        if steps is None and given.get("generation_batch_size"):
            steps = given["generation_batch_size"] // (given["per_device_train_batch_size"] * self.devices)
        accumulation = given["gradient_accumulation_steps"]
        return max(1, (steps or accumulation) * given["num_iterations"] // accumulation)

    @property
    def prompts_per_rollout(self) -> int:
        """Different prompts in one batch of generated completions."""
        given = self.batch
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
    trl = {**DEFAULTS, **trl}
    group = trl["num_generations"] if tree.get("kind") == "grpo" else 1
    unit = group // math.gcd(group, trl["per_device_train_batch_size"] * devices)
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


def essence(config: Config) -> dict[str, Any]:
    """What decides what is learned, flat: nothing harmless, and nothing that only spells out a default."""
    usual = {f"trl.{k}": v for k, v in {**trl_fields.defaults(config.kind), **DEFAULTS}.items()}
    usual |= {"reward.preset": "paper", "reward.overlong": 0, "lora.save": "merged"}
    usual |= {f"reward.options.{k}": v for k, v in vars(Options()).items()}
    out: dict[str, Any] = {"lora": bool(config.lora)}
    for key, value in _flat(asdict(config)).items():
        spelled = (
            key in usual and value == usual[key] and isinstance(value, bool) == isinstance(usual[key], bool)
        )
        unread = config.kind == "sft" and key.startswith("reward")
        if key not in HARMLESS and not spelled and not unread and value != {}:
            out[key] = value
    return out


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


def whole(name: str, value: Any, least: int) -> None:
    """IcrError for what is no whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise IcrError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def world_size() -> int:
    """Processes of this launch (accelerate and torchrun set WORLD_SIZE)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file with what it extends, unchecked. IcrError when there is none, or it is no mapping."""
    found = path if path.is_file() else SHIPPED / path.name
    if not found.is_file():
        shipped = sorted(p.name for p in SHIPPED.glob("*.yaml") if not p.name.startswith("_"))
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


def known(
    kind: str, given: Mapping[str, Any], names: Sequence[str], also: Mapping[str, str] | None = None
) -> None:
    """IcrError for names that are not known; `also` says what replaces former ones."""
    for name in given:
        if name not in names:
            if also and name in also:
                raise IcrError(f"unknown {kind} {name!r}; set {also[name]}")
            raise unknown(kind, str(name), names)
