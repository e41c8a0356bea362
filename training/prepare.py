"""From a config to what a trainer is given: checked, truncated rows in their final order, and the run
folder's files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError
from icr_tasks.storage import write_atomic

from . import config as configs
from .checkpoint import all_of, clean, latest
from .config import Config
from .data import formats
from .data.store import Manifest, read, sha256
from .rewards import registry
from .rows import Order, Report, counter, fit


@dataclass
class Prepared:
    """`dataset` is in training order and passed once; `resume` is the checkpoint to continue from, if any."""

    dataset: Any
    tokenizer: Any
    data_hash: str
    order: Order
    truncation: str
    resume: Path | None


def train_file(config: Config) -> Path:
    """The parquet file a config names: a data folder's train.parquet, or the file itself."""
    path = Path(config.data)
    path = path / "train.parquet" if path.is_dir() else path
    if not path.is_file():
        raise IcrError(f"no training data at {path}; make them with `icr train data -o {config.data}`")
    return path


def check(config: Config, *, fresh: bool = False, launched: bool = True) -> tuple[Path, Path | None]:
    """Everything that can be known without torch: data, rewards, launch, run folder. Returns (data file,
    checkpoint).

    `launched=False`: this process is not the one that will train.
    """
    path = train_file(config)
    if launched and (world := configs.world_size()) != config.devices:
        raise IcrError(
            f"this launch has {world} process(es), the config's batch sizes are written for {config.devices}; use "
            f"`accelerate launch --num_processes {config.devices}`, or set devices={world} and the batch sizes with it"
        )
    if config.model.startswith((".", "/", "~")) and not Path(config.model).expanduser().is_dir():
        raise IcrError(f"no model folder {config.model}")
    rows = read(path, ["id", "answers", "gold_ids", "gold_docs", "passages"])
    registry.check(rows, config.reward["name"] if config.kind == "grpo" else formats_reward(config.prompt))
    run = Path(config.output)
    if fresh and run.is_dir() and configs.world_size() == 1:
        for old in (*all_of(run), run / "prepared", run / "completions"):
            shutil.rmtree(old, ignore_errors=True)
        for name in ("order.json", "config.yaml", "metrics.jsonl"):
            (run / name).unlink(missing_ok=True)
    recorded = run / "config.yaml"
    if recorded.is_file():
        changed = configs.difference(configs.load(recorded), config)
        if changed:
            raise IcrError(
                f"{run} was begun with another config (differs in {', '.join(changed)}); use another output, or --fresh "
                "to start over"
            )
    elif all_of(run):
        raise IcrError(f"{run} holds checkpoints but no config.yaml; use another output folder")
    return path, latest(run)


def formats_reward(prompt: str) -> str:
    """The reward whose columns an SFT target of that prompt needs."""
    return prompt.removesuffix("_code")


def rows(config: Config, path: Path, tokenizer: Any, report: Report) -> Iterator[dict[str, Any]]:
    """Trainer examples in file order, truncated by whole passages."""
    from tqdm import tqdm

    count, sizes = counter(tokenizer, config.prompt)
    for number, row in enumerate(tqdm(read(path), desc="rows", unit=" rows", leave=False)):
        if config.limit is not None and number >= config.limit:
            return
        cut = fit(row, config.max_prompt_length, count, sizes, config.truncation, report)
        if cut is None:
            continue
        example: dict[str, Any] = {"prompt": formats.messages(cut, config.prompt)}
        if config.kind == "sft":
            # A row may bring its own demonstration; after a cut its passage numbers would be wrong.
            own = cut.get("target") if cut["n_dropped"] == row["n_dropped"] else None
            text = own or formats.target(cut, config.prompt)
            example["completion"] = [{"role": "assistant", "content": text}]
            example["id"] = cut["id"]
        else:
            example |= {name: cut[name] for name in formats.REWARD_COLUMNS}
        yield example


def prepare(config: Config, path: Path, resume: Path | None, block: int) -> Prepared:
    """Tokenizer, truncated data set (kept in `prepared/`, so a resumed run does not tokenize again) and
    order."""
    from accelerate import PartialState
    from datasets import Dataset, load_from_disk
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(config.model)
    tokenizer.padding_side, tokenizer.truncation_side = "left", "left"
    run, state = Path(config.output), PartialState()
    manifest = Manifest.load(path.parent)
    data_hash = manifest.hash() if manifest.stages else sha256(path)[:16]
    folder = run / "prepared"
    with state.main_process_first():
        if state.is_main_process:
            clean(run)
            _settle(run, config)
        if not (folder / "report.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            report = Report()
            try:
                dataset = Dataset.from_generator(lambda: rows(config, path, tokenizer, report))
            except Exception as error:
                if report.rows == len(report.left_out):  # datasets has no first row to take the columns from
                    raise IcrError(f"no row of {path} can be used: {report}") from error
                raise
            dataset.save_to_disk(str(folder))
            body = {"text": str(report), "left_out": report.left_out, "data_hash": data_hash}
            write_atomic(folder / "report.json", json.dumps(body).encode())
            print(f"data: {report}", flush=True)
    body = json.loads((folder / "report.json").read_text())
    if body["data_hash"] != data_hash:
        raise IcrError(
            f"{path} changed since the run in {run} began; use another output, or --fresh to start over"
        )
    dataset = load_from_disk(str(folder))
    sizes = [sum(len(m["content"]) for m in prompt) for prompt in dataset["prompt"]]
    order = Order.make(list(dataset["id"]), config.epochs, config.seed, block, config.order, sizes)
    if state.is_main_process:
        order.settle(run)
    return Prepared(dataset.select(order.indices), tokenizer, data_hash, order, body["text"], resume)


def _settle(run: Path, config: Config) -> None:
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "config.yaml").is_file():
        write_atomic(run / "config.yaml", config.dump().encode())


def arguments(config: Config) -> dict[str, Any]:
    """Keyword arguments for TRL's config class: ours where we own them, the `trl:` block for the rest."""
    given = {
        "output_dir": config.output,
        "num_train_epochs": 1,  # the order holds all epochs
        "seed": config.seed,
        "report_to": "none",
        **config.trl,
    }
    if os.environ.get("ACCELERATE_USE_CPU") == "true":
        given.setdefault("use_cpu", True)
    return given


def peft_config(config: Config) -> Any:
    """peft's LoraConfig of the `lora:` block, or None."""
    if not config.lora:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora.get("r", 64),
        lora_alpha=config.lora.get("alpha", 32),
        lora_dropout=config.lora.get("dropout", 0.0),
        target_modules=config.lora.get("target_modules", "all-linear"),
        task_type="CAUSAL_LM",
    )
