"""What a run will do before it does it: batches, steps, checkpoints, disk, memory and GPU hours, by
arithmetic.

The numbers of parameters come from the model's config where it lies here, else from the size in its name
("7B"); without either the lines that need them are left out, and say so.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from icr_tasks.errors import IcrError

from .config import Config
from .data import store

RATE = 400e12  # useful FLOP/s of one GPU: 40 % of an H100's 989 TFLOP/s in bf16
_G = 1e9


@dataclass(frozen=True)
class Shape:
    """A model's size: parameters, layers, width."""

    parameters: float
    layers: int
    width: int


def shape(model: str) -> Shape | None:
    """From config.json of a folder, or from the name of a dense model; None when neither tells."""
    path = Path(model).expanduser() / "config.json"
    if path.is_file():
        c = json.loads(path.read_text())
        width, layers = c.get("hidden_size"), c.get("num_hidden_layers")
        if not width or not layers:
            return None
        heads = c.get("num_attention_heads", 1)
        kv = c.get("num_key_value_heads", heads) / heads
        inner = c.get("intermediate_size", 4 * width)
        embedded = c.get("vocab_size", 0) * width * (1 if c.get("tie_word_embeddings") else 2)
        return Shape(layers * (width * width * (2 + 2 * kv) + 3 * width * inner) + embedded, layers, width)
    size = re.search(
        r"(?<![\w.])(\d+(?:\.\d+)?)\s*([BM])(?![a-z])", Path(model).name.replace("-", " ").replace("_", " ")
    )
    if not size:
        return None
    n = float(size[1]) * (1e9 if size[2] == "B" else 1e6)
    width = (
        round((n / 12 / 7) ** (1 / 3) / 128) * 128 or 128
    )  # layers are about width / 128 in today's models
    return Shape(n, max(1, width // 128), width)


@dataclass(frozen=True)
class Plan:
    """The arithmetic of one run. Sizes in bytes, `hours` are GPU hours, 0 where the model's size is
    unknown."""

    rows: int
    prompts: int
    completions: int
    rollouts: int
    steps: int
    saves: int
    prompt_tokens: int
    counted: bool
    weights: float
    disk: float
    memory: float
    hours: float


def of(config: Config, data: Path, rate: float = RATE) -> Plan:
    """The plan of a config on a data file."""
    total = min(store.count(data), config.limit or store.count(data))
    noted = [r["n_tokens"] or 0 for r in store.read(data, ["n_tokens"])][:total]
    counted = bool(noted) and all(noted)
    length = min(
        round(sum(noted) / len(noted)) if counted else config.max_prompt_length, config.max_prompt_length
    )
    given = config.batch
    update = given["per_device_train_batch_size"] * given["gradient_accumulation_steps"] * config.replicas
    if config.kind == "grpo":
        prompts = config.prompts_per_rollout
        rollouts = total // prompts * config.epochs
        steps = rollouts * config.updates_per_rollout
        group = given["num_generations"]
    else:
        prompts, group = update, 1
        rollouts = steps = total // update * config.epochs
    if (most := given.get("max_steps", -1)) > 0:  # TRL goes on over the rows until then
        rollouts = -(-most * rollouts // steps) if steps else 0
        steps = most if steps else 0
    every = given["save_steps"] if given["save_strategy"] in ("steps", "best") else steps
    every = max(1, math.ceil(steps * every)) if every < 1 else every  # a share of the steps
    saves = -(-steps // every) if steps else 0
    kept = min(saves, given.get("save_total_limit") or saves)
    found = shape(config.model)
    weights = memory = hours = 0.0
    if found:
        n, lora = found.parameters, bool(config.lora)
        weights = 0.1 * n if config.lora.get("save") == "adapter" else 2 * n
        state = 0.1 * n if lora else 12 * n
        share = config.devices
        memory = (2 * n if lora else 16 * n) / share + (0 if lora or not given.get("beta") else 4 * n / share)
        micro, tokens = given["per_device_train_batch_size"], length + config.max_response_length
        memory += (found.layers + 14) * found.width * tokens * micro * 2 / config.context_parallel
        sequences = prompts * group * rollouts
        one = 2 * n * tokens + 2 * found.layers * found.width * tokens**2
        passes = 4 if config.kind == "sft" else 4 + 1 + (1 if given.get("beta") else 0) + 1 / group
        hours = sequences * one * passes / rate / 3600
        disk = kept * weights + min(kept, config.keep_states or kept) * state
    else:
        disk = 0.0
    return Plan(total, prompts, update, rollouts, steps, saves, length, counted, weights, disk, memory, hours)


def refuse_empty(config: Config, data: Path) -> None:
    """IcrError for a run that would end before its first step."""
    p = of(config, data)
    if not p.steps:
        raise IcrError(f"{_none(config, p)}; make more rows, or set smaller batches")


def _none(config: Config, p: Plan) -> str:
    what = "rollout" if config.kind == "grpo" else "update"
    return f"no step at all: {p.rows:,} rows do not fill one {what} of {p.prompts:,} prompts"


def text(config: Config, data: Path, rate: float = RATE) -> str:
    """The plan in lines; notes about what could not be checked here."""
    p = of(config, data, rate)
    given = config.batch
    shared = f", {config.context_parallel} to a sequence" if config.context_parallel > 1 else ""
    lines = [
        f"{p.rows:,} rows of {'about' if p.counted else 'up to'} {p.prompt_tokens:,} prompt tokens"
        f"{'' if p.counted else ' (not counted yet)'}, {config.epochs} epoch(s), {config.devices} process(es){shared}"
    ]
    if config.kind == "grpo":
        lines.append(
            f"a rollout: {p.prompts:,} prompts x {given['num_generations']} completions of up to "
            f"{config.max_response_length:,} tokens, {config.updates_per_rollout} update(s) of "
            f"{p.completions:,} completions"
        )
        lines.append(f"{p.rollouts:,} rollouts, {p.steps:,} steps")
    else:
        lines.append(f"{p.completions:,} rows an update, {p.steps:,} steps")
    left = p.rows - p.prompts * (p.rows // p.prompts)
    if left:
        what = "a rollout" if config.kind == "grpo" else "an update"
        lines.append(f"{left:,} rows an epoch do not fill {what} and wait for the next epoch's shuffle")
    if not p.steps:
        lines.append(_none(config, p))
    keep = given.get("save_total_limit") or "all"
    lines.append(
        f"{p.saves} checkpoint(s), {keep} kept, {config.keep_states or 'all'} of them with the optimizer"
    )
    if p.weights:
        lines.append(f"disk about {p.disk / _G:,.1f} GB ({p.weights / _G:,.1f} GB a model)")
        lines.append(
            f"memory about {p.memory / _G:,.1f} GB a GPU for training (weights, optimizer, checkpointed "
            "activations; sharded over "
            f"{config.devices}){', vLLM besides' if given.get('use_vllm') else ''}"
        )
        beside = ", without the rollouts' decoding" if config.kind == "grpo" else ""
        lines.append(
            f"about {p.hours:,.1f} GPU hours at {rate / 1e12:,.0f} TFLOP/s of useful work a GPU{beside}"
        )
    else:
        lines.append(f"the size of {config.model} is not known here: no estimate of disk, memory and hours")
    if not config.model.startswith((".", "/", "~")) and not Path(config.model).is_dir():
        lines.append(f"{config.model} is fetched from the hub at the start; its name was not checked")
    return "\n".join(f"  {line}" for line in lines)
