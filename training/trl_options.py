"""The options TRL's configs take, read from their source text: no torch, no trl import (20 s), never out of
date."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError, install_hint, unknown

_CLASS = {"grpo": ("grpo_config.py", "GRPOConfig"), "sft": ("sft_config.py", "SFTConfig")}
# Ours to set, and where: the order of the data, the folder and the lengths are decided in one place.
OWNED = {
    "output_dir": "output",
    "num_train_epochs": "epochs",
    "seed": "seed",
    "data_seed": "seed",
    "shuffle_dataset": "nothing: the order of all epochs is written to order.json",
    "train_sampling_strategy": "nothing: the order of all epochs is written to order.json",
    "max_completion_length": "max_response_length",
    "max_length": "max_prompt_length and max_response_length",
    "resume_from_checkpoint": "nothing: a run continues from its last checkpoint by itself",
    "remove_unused_columns": "nothing: rewards need the columns",
    "log_completions": "log_completions (every N steps)",
    "auto_find_batch_size": "per_device_train_batch_size; GRPO needs whole groups",
    "load_best_model_at_end": "nothing: compare checkpoints with `icr train eval`",
    "parallelism_config": "nothing: GRPO in TRL has no sequence parallelism; docs/training.md has the verl "
    "recipe",
    "completion_only_loss": "nothing: the loss is on the completion alone",
    "hub_token": "the environment variable HF_TOKEN (a config is copied into every checkpoint)",
    "group_by_length": "nothing: the order of all epochs is written to order.json",
}
# verl's names (and TRL's former ones) with what replaces them here.
RENAMED = {
    "max_prompt_length": "max_prompt_length at the top level of the config",
    "train_batch_size": "trl.generation_batch_size = prompts x num_generations (TRL counts completions)",
    "ppo_mini_batch_size": "per_device_train_batch_size x devices x gradient_accumulation_steps (in "
    "completions)",
    "ppo_micro_batch_size_per_gpu": "trl.per_device_train_batch_size",
    "ppo_epochs": "trl.num_iterations",
    "kl_loss_coef": "trl.beta",
    "use_kl_loss": "trl.beta",
    "kl_loss_type": "trl.use_bias_correction_kl: false (TRL's estimator is k3)",
    "n": "trl.num_generations",
    "rollout_n": "trl.num_generations",
    "lr": "trl.learning_rate",
    "save_freq": "trl.save_steps (verl step = generation_batch / update batch TRL steps)",
    "total_epochs": "epochs",
    "epochs": "epochs at the top level of the config",
    "gpu_memory_utilization": "trl.vllm_gpu_memory_utilization",
    "tensor_model_parallel_size": "trl.vllm_tensor_parallel_size",
    "clip_ratio": "trl.epsilon",
    "clip_ratio_c": "trl.delta",
    "ulysses_sequence_parallel_size": "nothing in TRL; use configs/verl/ulysses4.yaml",
    "enable_activation_offload": "the accelerate config (configs/accelerate/fsdp2.yaml)",
}
# Arguments of the model, not of the trainer.
_OF_MODEL = ("attn_implementation", "dtype", "torch_dtype", "trust_remote_code", "revision")
# Options whose values TRL lists nowhere but in the comparisons of its trainer.
_COMPARED = (
    "loss_type",
    "importance_sampling_level",
    "scale_rewards",
    "multi_objective_aggregation",
    "vllm_mode",
    "vllm_importance_sampling_mode",
)
_ENUMS = {
    "lr_scheduler_type": ("trainer_utils.py", "SchedulerType"),
    "optim": ("training_args.py", "OptimizerNames"),
    "eval_strategy": ("trainer_utils.py", "IntervalStrategy"),
    "logging_strategy": ("trainer_utils.py", "IntervalStrategy"),
    "save_strategy": ("trainer_utils.py", "SaveStrategy"),
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@lru_cache(maxsize=4)
def known(kind: str) -> dict[str, str]:
    """Option -> annotation, of TRL's config class and its bases. IcrError when trl is not installed."""
    found: dict[str, str] = {}
    for package, file in (
        ("transformers", "training_args.py"),
        ("trl", f"trainer/{_CLASS[kind][0]}"),
        ("trl", "trainer/base_config.py"),
    ):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise IcrError(f"training needs {package}: {install_hint('train')}")
        tree = ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name in (
                "TrainingArguments",
                "_BaseConfig",
                _CLASS[kind][1],
            ):
                for line in node.body:
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                        found[line.target.id] = ast.unparse(line.annotation)
    return {
        name: kind_ for name, kind_ in found.items() if not name.startswith("_") and "ClassVar" not in kind_
    }


@lru_cache(maxsize=4)
def defaults(kind: str) -> dict[str, Any]:
    """Option -> what TRL takes where a config says nothing, as far as its source writes it as a plain value."""
    found: dict[str, Any] = {}
    for package, file, name in (
        ("transformers", "training_args.py", "TrainingArguments"),
        ("trl", "trainer/base_config.py", "_BaseConfig"),
        ("trl", f"trainer/{_CLASS[kind][0]}", _CLASS[kind][1]),
    ):
        for node in ast.parse(_source(package, file)).body:
            if not isinstance(node, ast.ClassDef) or node.name != name:
                continue
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
                    value: ast.expr = line.value
                    if isinstance(value, ast.Call):  # field(default=...)
                        value = next((k.value for k in value.keywords if k.arg == "default"), value)
                    try:
                        found[line.target.id] = ast.literal_eval(value)
                    except ValueError:
                        found.pop(line.target.id, None)
    return found


def _source(package: str, file: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise IcrError(f"training needs {package}: {install_hint('train')}")
    return (Path(spec.origin).parent / file).read_text(encoding="utf-8")


@lru_cache(maxsize=4)
def choices(kind: str) -> dict[str, tuple[str, ...]]:
    """Option -> the words it takes: field metadata, Literal annotations, enums, and what the trainer compares
    it with."""
    found: dict[str, tuple[str, ...]] = {}
    config = ast.parse(_source("trl", f"trainer/{_CLASS[kind][0]}"))
    for node in (
        n for n in ast.walk(config) if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    ):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Dict):
                for key, value in zip(inner.keys, inner.values, strict=True):
                    if (
                        isinstance(key, ast.Constant)
                        and key.value == "choices"
                        and isinstance(value, ast.List)
                    ):
                        found[node.target.id] = tuple(ast.literal_eval(value))  # type: ignore[union-attr]
            if isinstance(inner, ast.Subscript) and ast.unparse(inner.value).endswith("Literal"):
                words = ast.literal_eval(inner.slice)
                found[node.target.id] = words if isinstance(words, tuple) else (words,)  # type: ignore[union-attr]
    for name, (file, enum) in _ENUMS.items():
        for part in ast.parse(_source("transformers", file)).body:
            if isinstance(part, ast.ClassDef) and part.name == enum:
                values = (line.value for line in part.body if isinstance(line, ast.Assign))
                found[name] = tuple(v.value for v in values if isinstance(v, ast.Constant))  # type: ignore[misc]
    if kind == "grpo":
        trainer = _source("trl", "trainer/grpo_trainer.py") + _source("trl", "trainer/grpo_config.py")
        for name in _COMPARED:
            spots = re.findall(rf"\b{name}\s*(?:==|!=|in|not in)\s*(\[[^\]]*\]|\"\w+\")", trainer)
            words = {w for spot in spots for w in re.findall(r"\"(\w+)\"", spot)}
            if len(words) > 1:
                found[name] = tuple(sorted(words))
    return found


def checked(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The `trl:` block with numbers as numbers. IcrError for names that do not exist, are ours, or values of
    no use."""
    names, out = known(kind), {}
    for name, value in given.items():
        if name in OWNED and not (kind == "sft" and name == "parallelism_config"):
            raise IcrError(f"trl.{name} is not set here; set {OWNED[name]}")
        if name not in names:
            if name in RENAMED:
                raise IcrError(f"TRL has no option {name!r}; set {RENAMED[name]}")
            if name in _OF_MODEL:
                raise IcrError(
                    f"{name} is an argument of the model; set trl.model_init_kwargs: {{{name}: ...}}"
                )
            near = difflib.get_close_matches(name, sorted(set(names) - set(OWNED)), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise IcrError(f"{_CLASS[kind][1]} has no option {name!r}.{hint}")
        out[name] = _value(name, value, names[name])
        words = choices(kind).get(name)
        if words and isinstance(value, str) and value not in words:
            raise unknown(f"value of trl.{name}", value, words)
    return out


def _value(name: str, value: Any, annotation: str) -> Any:
    """Numbers written as YAML text (1e-6 is text to YAML 1.1) become numbers; a wrong type is an error."""
    accepts = {part.strip() for part in re.split(r"[|,\[\]]", annotation)}
    if isinstance(value, str) and "float" in accepts and _NUMBER.fullmatch(value):
        return float(value)
    simple = accepts & {"int", "float", "bool"}
    text_like = accepts - {"int", "float", "bool", "None", "Optional", ""}
    wrong = (
        (value is None and not accepts & {"None", "Optional"})
        or (isinstance(value, bool) and "bool" not in accepts and simple and not text_like)
        or (isinstance(value, str) and simple and not text_like)
        or (
            isinstance(value, float)
            and accepts & {"int", "bool"}
            and "float" not in accepts
            and not text_like
        )
    )
    if wrong:
        raise IcrError(f"trl.{name} is {value!r}, but TRL declares it as {annotation}")
    return value
