"""From a config to what a trainer is given: checked, truncated rows in their final order, and the run
folder's files."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from icr_tasks import hub
from icr_tasks.errors import IcrError
from icr_tasks.storage import write_atomic

from . import checks
from . import config as configs
from .checkpoint import all_of, clean, latest, resumable
from .checks import hash_of
from .config import Config
from .data import formats, store
from .data.store import Manifest, read
from .rewards import registry
from .rows import Order, Report, counter, fit

_SHARE = 500  # rows from which one more process pays


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
            f"this launch has {world} process(es), the config's batch sizes are written for "
            f"{config.devices}; use `icr train launch`, which starts as many, or set devices={world} and the "
            "batch sizes with it"
        )
    if launched:
        split = os.environ.get("ACCELERATE_USE_PARALLELISM_CONFIG") == "true"
        of = int(os.environ.get("PARALLELISM_CONFIG_CP_SIZE", "1")) if split else 1
        checks.split(config, of, "this launch")
    if config.model.startswith((".", "/", "~")) and not Path(config.model).expanduser().is_dir():
        raise IcrError(f"no model folder {config.model}")
    checks.template(config.model)
    if missing := [name for name in store.ROW if name not in store.columns(path)]:
        raise IcrError(
            f"{path} has no column {', '.join(missing)}; make it with `icr train data` (--records for rows of your "
            "own; docs/training_data.md lists the columns)"
        )
    rows = read(path, ["id", "question", "answers", "gold_ids", "gold_docs", "passages"])
    registry.check(rows, config.reward["name"] if config.kind == "grpo" else formats_reward(config.prompt))
    evaluated = config.batch["eval_strategy"] != "no"
    if evaluated:
        dev_file(config)
    checks.apart(path, evaluated)
    checks.held(path)
    run = Path(config.output)
    if fresh and run.is_dir() and configs.world_size() > 1:
        raise IcrError(f"--fresh is for one process, and this is one of several: remove {run}, then launch")
    if fresh and run.is_dir():
        for old in (*all_of(run), run / "prepared", run / "completions"):
            shutil.rmtree(old, ignore_errors=True)
        for name in ("order.json", "config.yaml", "metrics.jsonl"):
            (run / name).unlink(missing_ok=True)
    recorded = run / "config.yaml"
    if recorded.is_file():
        changed = configs.difference(configs.load(recorded), config)
        if changed:
            raise IcrError(
                f"{run} was begun with another config (differs in {', '.join(changed)}); use another "
                "output, or --fresh "
                "to start over"
            )
    elif all_of(run):
        raise IcrError(f"{run} holds checkpoints but no config.yaml; use another output folder")
    checks.same(run, path)
    last = latest(run)
    if last and not resumable(last):
        raise IcrError(
            f"{last} holds the model without its optimizer, so the run cannot go on from it; use another "
            "output, or --fresh "
            "(keep_states says how many checkpoints keep theirs)"
        )
    return path, last


def formats_reward(prompt: str) -> str:
    """The reward whose columns an SFT target of that prompt needs."""
    return prompt.removesuffix("_code")


def counted(path: Path, config: Config) -> bool:
    """Whether the rows' own `n_tokens` (of the longest of `formats.FORMATS`) were counted with the tokenizer
    that will train, and are those of this file."""
    manifest = Manifest.load(path.parent)
    packed = manifest.stages.get("pack", {}).get("options", {})
    asked = config.prompt in formats.FORMATS and not config.chat_template_kwargs
    return asked and packed.get("tokenizer") == config.model and manifest.wrote(path)


def rows(
    config: Config, path: Path, tokenizer: Any, report: Report, part: tuple[int, int] | None = None
) -> Iterator[dict[str, Any]]:
    """Trainer examples in file order, truncated by whole passages; `part` is a range of row numbers."""
    for row, cut in fitted(config, path, tokenizer, report, part):
        yield example(config, row, cut)


def fitted(
    config: Config, path: Path, tokenizer: Any, report: Report, part: tuple[int, int] | None = None
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(row, row as it is trained on) of every row that is not left out, in file order."""
    measure, sizes = counter(tokenizer, config.prompt, config.chat_template_kwargs)
    known, limit = counted(path, config), config.max_prompt_length
    begin, end = part or (0, config.limit if config.limit is not None else store.count(path))

    def count(row: Mapping[str, Any]) -> int:
        noted = row.get("n_tokens") or 0
        return noted if known and 0 < noted <= limit else measure(row)

    for number, row in enumerate(
        tqdm(read(path), desc="prepare", unit=" rows", total=end, disable=begin > 0)
    ):
        if number >= end:
            return
        if number < begin:
            continue
        cut = fit(row, limit, count, sizes, config.truncation, report)
        if cut is not None:
            yield row, cut


def example(config: Config, row: Mapping[str, Any], cut: Mapping[str, Any]) -> dict[str, Any]:
    """What a trainer gets of a row: the prompt with the completion, or with the reward's columns."""
    out: dict[str, Any] = {"prompt": formats.messages(cut, config.prompt)}
    if config.kind == "grpo":
        return out | {name: cut[name] for name in formats.REWARD_COLUMNS}
    # A row may bring its own demonstration; after a cut its passage numbers would be wrong.
    own = cut.get("target") if cut["n_dropped"] == row["n_dropped"] else None
    text = own or formats.target(cut, config.prompt)
    out |= {"completion": [{"role": "assistant", "content": text}], "id": cut["id"]}
    return out | (
        {"chat_template_kwargs": config.chat_template_kwargs} if config.chat_template_kwargs else {}
    )


def _part(parts: list[tuple[int, int]], text: str, path: str, reports: str) -> Iterator[dict[str, Any]]:
    """`rows` of some ranges in a process of its own; what truncation did goes to `reports`."""
    from transformers import AutoTokenizer

    config = configs.of(yaml.safe_load(text))
    tokenizer = AutoTokenizer.from_pretrained(config.model, local_files_only=hub.local(config.model, "model"))
    for part in parts:
        report = Report()
        yield from rows(config, Path(path), tokenizer, report, part)
        write_atomic(Path(reports) / f"{part[0]:012}.json", json.dumps(asdict(report)).encode())


def materialise(config: Config, path: Path, data_hash: str, workers: int = 1) -> str:
    """Write the rows a trainer gets to `prepared/`, unless they are there; returns what truncation did, in
    words."""
    from datasets import Dataset

    folder = Path(config.output) / "prepared"
    done = folder / "report.json"
    if done.is_file():
        return str(json.loads(done.read_text())["text"])
    hub.local(config.model, "model")  # asked here, so that the processes need not
    shutil.rmtree(folder, ignore_errors=True)
    notes = folder / "reports"
    notes.mkdir(parents=True)
    total = min(store.count(path), config.limit or sys.maxsize)
    workers = max(1, min(workers, total // _SHARE))
    edges = [total * i // workers for i in range(workers + 1)]
    given = {"parts": list(zip(edges, edges[1:], strict=False)), "text": config.dump(), "path": str(path)}
    try:
        dataset = Dataset.from_generator(
            _part,
            gen_kwargs=given | {"reports": str(notes)},
            num_proc=workers if workers > 1 else None,
            cache_dir=str(folder / "cache"),  # a cached set would say nothing about what was cut
        )
    except Exception as error:
        report, cause = _summed(notes), error.__cause__ or error
        if not isinstance(cause, IcrError) and report.rows and report.rows == len(report.left_out):
            # datasets has no first row to take the columns from
            raise IcrError(f"no row of {path} can be used: {report}") from error
        raise cause from None
    report = _summed(notes)
    dataset.save_to_disk(str(folder))
    del dataset
    shutil.rmtree(folder / "cache", ignore_errors=True)
    shutil.rmtree(notes)
    body = {"text": str(report), "left_out": report.left_out, "data_hash": data_hash}
    write_atomic(done, json.dumps(body).encode())
    print(f"data: {report}", flush=True)
    return str(report)


def _summed(notes: Path) -> Report:
    total = Report()
    for path in sorted(notes.glob("*.json")):
        one = Report(**json.loads(path.read_text()))
        for name in ("rows", "cut", "dropped", "gold_dropped", "left_out"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
    return total


def main(argv: list[str]) -> int:
    """`icr train prepare CONFIG`: render, count and cut the rows now, with all cores, so that no GPU waits
    for it."""
    parser = argparse.ArgumentParser(prog="icr train prepare", description=main.__doc__)
    parser.add_argument("config", help="a YAML file, or the name of one that ships (grpo_ao.yaml)")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    args = parser.parse_intermixed_args(argv)
    config = configs.load(args.config, args.overrides)
    path, _ = check(config, launched=False)
    ready(config, path, args.workers)
    return 0


def ready(config: Config, path: Path, workers: int) -> None:
    """Prepare a checked config's rows and say what became of them."""
    _settle(Path(config.output), config)
    print(f"prepared: {materialise(config, path, hash_of(path), workers)}", flush=True)


def dev_rows(config: Config, tokenizer: Any) -> Any:
    """The first `config.dev` rows of dev.parquet that fit, as a dataset; held-out reward or loss during
    training."""
    from datasets import Dataset

    path = dev_file(config)
    found = rows(config, path, tokenizer, Report(), (0, min(config.dev, store.count(path))))
    return Dataset.from_list(list(found))


def dev_file(config: Config) -> Path:
    """The dev.parquet beside the training file. IcrError when trl.eval_strategy asks for one that is not there."""
    path = train_file(config).parent / "dev.parquet"
    if not path.is_file() or not store.count(path):
        raise IcrError(
            f"trl.eval_strategy needs held-out rows, but there are none at {path}; make the data with --dev "
            "0.05, or drop "
            "trl.eval_strategy"
        )
    return path


def prepare(config: Config, path: Path, resume: Path | None, block: int) -> Prepared:
    """Tokenizer, truncated data set (in `prepared/`, so a resumed run does not tokenize again), order."""
    here = hub.local(config.model, "model")
    from accelerate import PartialState
    from datasets import load_from_disk
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(config.model, local_files_only=here)
    tokenizer.padding_side, tokenizer.truncation_side = "left", "left"
    run, state = Path(config.output), PartialState()
    data_hash, folder = hash_of(path), run / "prepared"
    with state.main_process_first():
        if state.is_main_process:
            clean(run)
            _settle(run, config)
            materialise(config, path, data_hash, os.cpu_count() or 1)
    body = json.loads((folder / "report.json").read_text())
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
    given.setdefault("ddp_timeout", 14_400)  # the others wait while one process prepares the rows
    if config.chat_template_kwargs and config.kind == "grpo":
        given["chat_template_kwargs"] = dict(config.chat_template_kwargs)
    if (given.get("model_init_kwargs") or {}).get("attn_implementation") == "auto":
        given["model_init_kwargs"] = {**given["model_init_kwargs"], "attn_implementation": attention()}
        print(f"attention: {given['model_init_kwargs']['attn_implementation']}", flush=True)
    if os.environ.get("ACCELERATE_USE_CPU") == "true":
        given.setdefault("use_cpu", True)
    return given


def attention() -> str:
    """What `attn_implementation: auto` stands for here: flash attention where it is installed and there is a
    GPU."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    return "flash_attention_2" if torch.cuda.is_available() and is_flash_attn_2_available() else "sdpa"


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
