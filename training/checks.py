"""What a config, its data and its base model are refused for before anything heavy loads."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from icr_tasks.errors import IcrError, unknown
from icr_tasks.metrics.answers import normalize
from icr_tasks.metrics.unspaced import spread

from .data.keychain import question_of
from .data.store import Manifest, read, sha256

if TYPE_CHECKING:
    from .config import Config

# ---- config --------------------------------------------------------------------------------------
# Prompt, reward, batch arithmetic.


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
    options = registry.options_of(config.reward.get("options"), preset)
    if name not in registry.PRESETS[preset]:
        raise IcrError(f"preset {preset!r} has no reward {name!r}; use preset 'paper'")
    registry.suits(name, options)
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
    given = config.batch
    if given.get("bf16") and given.get("fp16"):
        raise IcrError("trl.bf16 and trl.fp16 exclude each other; keep bf16 on a GPU that has it")
    if given.get("use_vllm") and given["vllm_mode"] == "colocate":
        split = given["vllm_tensor_parallel_size"]
        if config.devices % split:
            raise IcrError(
                f"trl.vllm_tensor_parallel_size {split} does not divide devices {config.devices}; set it to "
                "1, or use more "
                "devices"
            )
    if config.context_parallel > 1 and config.kind == "grpo":
        raise IcrError(
            "context_parallel is for SFT: GRPO in TRL has none; docs/training.md has the verl recipe"
        )
    if config.devices % config.context_parallel:
        raise IcrError(
            f"context_parallel {config.context_parallel} does not divide devices {config.devices}: each sequence is "
            "shared by that many processes"
        )
    if "chat_template_kwargs" in given:
        raise IcrError(
            "set chat_template_kwargs at the top level: lengths are counted with them and cards record them"
        )
    if given["eval_strategy"] != "no" and config.kind == "grpo":
        group = given.get("num_generations_eval") or given["num_generations"]
        size = given["per_device_eval_batch_size"] * config.devices
        if size % group:
            raise IcrError(
                f"an evaluation batch of {size} completions is no multiple of {group} a prompt; set "
                f"trl.per_device_eval_batch_size={group}"
            )


def batches(config: Config) -> None:
    """TRL's arithmetic, before its own imports: whole groups, whole rollouts, checkpoints between
    rollouts."""
    given = config.batch
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
    every, updates = given["save_steps"], config.updates_per_rollout
    if given["save_strategy"] == "steps" and every % updates:
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


def split(config: Config, of: int, how: str) -> None:
    """IcrError when a launch shares a sequence among another number of processes: its batches would be other
    ones."""
    if of != config.context_parallel:
        raise IcrError(
            f"{how} shares each sequence among {of} process(es), the config's batch sizes are written for "
            f"context_parallel {config.context_parallel}; launch with the accelerate file for it (cp4 has 4), or "
            f"set context_parallel={of} and the batch sizes with it"
        )


# ---- data ----------------------------------------------------------------------------------------


def apart(path: Path, evaluated: bool) -> None:
    """IcrError when rows of the dev set are trained on; `evaluated`: the run itself looks at the dev set."""
    other = path.parent / "dev.parquet"
    if not other.is_file() or (path.name == other.name and not evaluated):
        return
    columns = ["id", "question", "gold_docs"]
    kept = {(r["id"], normalize(question_of(r))) for r in read(other, columns)}
    ids, asked = {i for i, _ in kept}, {q for _, q in kept}
    both = [r["id"] for r in read(path, columns) if r["id"] in ids or normalize(question_of(r)) in asked]
    if both:
        raise IcrError(
            f"{len(both)} rows of {path} are in {other.name} too, such as {both[0]}; a held-out score would "
            "be a score on "
            "training rows: make the data again with `icr train data`"
        )


def held(path: Path) -> None:
    """Says how many rows have an answer that none of their passages holds; IcrError when all have.

    Yes, no and counts are said of passages. Others may be right in other words, so some are no error; a reward
    for all of them would teach to answer from memory.
    """
    lost, total = [], 0
    for row in read(path, ["id", "answers", "gold_docs", "passages"]):
        total += 1
        asked = [spread(a) for a in map(normalize, row["answers"]) if a]
        said = any(a in ("yes", "no") or a.isdigit() for a in asked)
        for texts in (row["gold_docs"], row["passages"]):  # the gold first: it is short
            said = said or any(f" {a} " in f" {spread(normalize(' '.join(texts)))} " for a in asked)
        if not said:
            lost.append(row["id"])
    if lost and len(lost) == total:
        raise IcrError(
            f"no row has an answer that its passages hold, such as {lost[0]} of {path}: a reward could only "
            "teach to answer "
            "from memory; make the data again with evidence (docs/training_data.md)"
        )
    if lost and os.environ.get("RANK", "0") == "0":
        print(
            f"{len(lost):,} of {total:,} rows have an answer that no passage holds, such as {lost[0]}",
            file=sys.stderr,
            flush=True,
        )


def hash_of(path: Path) -> str:
    """What names the training data in cards and records: the data folder's hash, or that of a file which
    `icr train data` did not write, or not as it is now."""
    if not path.is_file():
        raise IcrError(f"no training data at {path}; make them with `icr train data`")
    manifest = Manifest.load(path.parent)
    return manifest.hash() if manifest.wrote(path) else sha256(path)[:16]


def same(run: Path, path: Path) -> None:
    """IcrError when a run was begun with other rows than the file holds now."""
    begun = run / "prepared" / "report.json"
    if begun.is_file() and json.loads(begun.read_text())["data_hash"] != hash_of(path):
        raise IcrError(
            f"{path} changed since the run in {run} began; use another output, or --fresh to start over"
        )


# ---- base ----------------------------------------------------------------------------------------

NO_TEMPLATE = (
    "has no chat template, and training asks in the words that evaluation will use: begin with an instruct "
    "model, or put a chat_template.jinja into a copy of its folder"
)


def template(model: str) -> None:
    """IcrError where the files of the base's tokenizer lie here and none of them brings a chat template."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        found = _cached(model)
        if found is None:
            return
        folder = found
    if not any(re.search(r"token|vocab|tekken|\.model$", path.name) for path in folder.iterdir()):
        raise IcrError(f"{model} holds no tokenizer; copy its files from where the model came from")
    config = folder / "tokenizer_config.json"
    try:
        given = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    except ValueError as error:
        raise IcrError(f"{config} cannot be read ({error}); fetch the model's folder again") from error
    extra = folder / "additional_chat_templates" / "default.jinja"
    if (
        not given.get("chat_template")
        and not (folder / "chat_template.jinja").is_file()
        and not extra.is_file()
    ):
        raise IcrError(f"{model} {NO_TEMPLATE}")


def _cached(model: str) -> Path | None:
    """The hub cache's folder of a model, where it tells all about its template: the file of its own is known
    not to be, or nothing more can be fetched."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError

    try:
        config = huggingface_hub.try_to_load_from_cache(model, "tokenizer_config.json")
        own = huggingface_hub.try_to_load_from_cache(model, "chat_template.jinja")
    except HFValidationError:
        return None
    if not isinstance(config, str) or (own is None and not constants.HF_HUB_OFFLINE):
        return None
    return Path(config).parent
