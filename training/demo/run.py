"""`icr train demo -o train-demo`: a tiny model learns in-context retrieval on this machine, in minutes,
evaluated by lm_eval.

1. A random-init model of 0.7 million parameters learns to answer questions about 2 to 24 one-sentence passages. Its heads
   start as ones that look back and match: from plain noise they do not form in minutes.
2. Warm start: SFT on careless demonstrations, which take any passage whose name ends like the one asked for (1 of 3 right).
   They teach a bad habit on purpose, for GRPO to correct.
3. GRPO from there with the AO and the ID reward, several seeds: now only the right answer (and the right passage) counts.
4. Every checkpoint answers `icr_synth_short` tasks (names it has never seen) through lm_eval under full, rag and kv
   settings; ledgers, leaderboard, gate, and one pooled test over all seeds.

Interrupted? Run it again: finished stages are kept, training continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from icr_tasks.errors import IcrError
from icr_tasks.storage import write_atomic

from .. import checkpoint
from .. import config as configs
from .. import evaluate as evaluation
from . import base as rows
from . import report
from .size import FULL, QUICK, Size
from .usage import used

# ---- stages --------------------------------------------------------------------------------------
# The stages of the demonstration. Each skips what is done; training goes through the same `sft` and `grpo`
# as any run.

_ANSWER = {"ao": 8, "id": 14}
_COMMON: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "save_total_limit": 2,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 1.0,
    "save_steps": 10,
}


class Workers:
    """Processes that train, one thread each, so that every run is the same on any number of cores."""

    def __init__(self, count: int) -> None:
        self.pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_quiet)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def train(self, made: Sequence[configs.Config], steps: Sequence[int]) -> None:
        """Train all configs; one progress bar over all their steps."""
        runs = [Path(c.output) for c in made]
        before = [checkpoint.step_of(last) if (last := checkpoint.latest(run)) else 0 for run in runs]
        waiting = [(c, s) for c, s, b in zip(made, steps, before, strict=True) if b < s]
        futures = [self.pool.submit(_train, c.dump()) for c, _ in waiting]
        _watch(futures, [Path(c.output) for c, _ in waiting], sum(s for _, s in waiting), "steps")


def base(out: Path, size: Size, workers: Workers) -> Path:
    """The base model's folder."""
    folder = out / "base"
    if not folder.is_dir():
        future = workers.pool.submit(_base, str(folder), size.base_steps, size.base_passages)
        _watch([future], [out / "base-init"], size.base_steps, "base model")
    return folder


def warm(out: Path, size: Size, workers: Workers) -> None:
    """SFT on careless demonstrations, one run a prompt format."""
    made = []
    for prompt in size.rewards:
        data = _rows(out / f"data-sft-{prompt}", size.warm, prompt, seed=1, passages=size.passages)
        made.append(
            _config(
                out, "sft", f"sft-{prompt}", out / "base", data, prompt, 0, per_device_train_batch_size=24
            )
        )
    workers.train(made, [size.warm // 24] * len(made))


def reinforce(out: Path, size: Size, workers: Workers) -> None:
    """GRPO from the warm start, every reward under every seed."""
    made = []
    for seed in range(size.seeds):
        for prompt in size.rewards:
            count = size.steps * size.prompts
            data = _rows(
                out / f"data-grpo-{prompt}-s{seed}", count, prompt, seed=100 + seed, passages=size.passages
            )
            start = checkpoint.latest(out / f"sft-{prompt}")
            assert start is not None
            made.append(
                _config(
                    out,
                    "grpo",
                    f"{prompt}-s{seed}",
                    start,
                    data,
                    prompt,
                    seed,
                    num_generations=5,
                    temperature=1.0,
                    per_device_train_batch_size=5 * size.prompts,
                    beta=0.001,
                    loss_type="bnpo",
                    use_bias_correction_kl=False,
                    learning_rate=7e-4,
                    lr_scheduler_type="constant_with_warmup",
                    warmup_steps=4,  # at once 1e-3 breaks the format
                )
            )
    workers.train(made, [size.steps] * len(made))


def evaluate(out: Path, size: Size, jobs: int) -> list[evaluation.Trained]:
    """Sweep over the last checkpoint of every run (and what it started from); returns them."""
    trained = []
    for run in [f"{p}-s{s}" for p in size.rewards for s in range(size.seeds)] + [
        f"sft-{p}" for p in size.rewards
    ]:
        last = checkpoint.latest(out / run)
        assert last is not None
        trained.append(evaluation.read(last))
    tree = evaluation.study(
        trained,
        engine="icr-hf",
        settings=size.settings,
        tasks=size.tasks,
        limit=size.items,
        args={"device": "cpu"},
        gen={"max_gen_toks": max(_ANSWER.values())},
        out=out / "eval",
    )
    for model in tree["models"]:
        model["batch_size"] = 20
    os.environ |= {"OMP_NUM_THREADS": "1"}  # an engine is a process
    code = evaluation.run(tree, trained, out / "eval", margin=0.02, jobs=jobs)
    # 1 is a verdict: the warm starts are worse than the base model, as they should be.
    if code not in (0, 1):
        raise IcrError(f"the evaluation stopped (code {code}); the same command goes on from here")
    return trained


def _config(
    out: Path, kind: str, name: str, model: Path, data: Path, prompt: str, seed: int, **trl: Any
) -> configs.Config:
    tree: dict[str, Any] = {
        "kind": kind,
        "model": str(model),
        "data": str(data),
        "output": str(out / name),
        "prompt": prompt,
        "seed": seed,
        "order": "bucketed",
        "max_prompt_length": 512,
        "max_response_length": _ANSWER[prompt],
        "log_completions": 10,
        "trl": {**_COMMON, "learning_rate": 1e-3, "logging_steps": 1, **trl},
    }
    return configs.of(tree | ({"reward": {"name": prompt, "preset": "paper"}} if kind == "grpo" else {}))


def _rows(folder: Path, n: int, prompt: str, *, seed: int, passages: Sequence[int]) -> Path:
    options = {"n": n, "prompt": prompt, "seed": seed, "passages": list(passages)}
    if not (folder / "manifest.json").is_file():
        rows.save(folder, rows.rows(n, list(passages), prompt, seed), options)
    return folder


def _watch(futures: list[Future[Any]], runs: list[Path], total: int, what: str) -> None:
    """One bar over the logged steps of all runs; errors of the workers come out here."""
    with tqdm(total=total or None, desc=what, unit=" step" if total else " s") as bar:
        while not all(f.done() for f in futures):
            time.sleep(1)
            bar.n = sum(_lines(run / "metrics.jsonl") for run in runs) if total else bar.n + 1
            bar.refresh()
        for future in futures:
            future.result()
        if total:
            bar.n = total


def _lines(path: Path) -> int:
    return path.read_text().count("\n") if path.is_file() else 0


def _quiet() -> None:
    """Start of a worker process: one thread, no output, and no life of its own when the command is killed."""
    threading.Thread(target=_with_parent, args=(os.getppid(),), daemon=True).start()
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    import warnings

    warnings.filterwarnings("ignore")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # TRL prints every log; errors come back through the future
    os.dup2(null, 2)
    import torch

    torch.set_num_threads(1)


def _with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _base(folder: str, steps: int, most: int) -> None:

    rows.train(Path(folder), seed=0, steps=steps, most=most)
    used("base", folder)


def _train(text: str) -> str:
    import yaml

    config = configs.of(yaml.safe_load(text))
    from .. import trainers

    train = trainers.train_sft if config.kind == "sft" else trainers.train_grpo
    last = str(train(config))
    used(config.kind, config.output)
    return last


def main(argv: list[str]) -> int:
    """Returns 0 when SubEM rose significantly for every reward under every setting, 1 when not."""
    parser = argparse.ArgumentParser(
        prog="icr train demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("train-demo"), help="folder of everything it makes"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one seed, the AO reward, shorter contexts (for CI)"
    )
    parser.add_argument("--workers", type=int, default=2, help="training processes at once (default 2)")
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise IcrError("--workers must be at least 1")
    started = time.time()
    size = QUICK if args.quick else FULL
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    _settle(out, size)
    say = _Say(5)
    say("base model: random weights, taught on short conversations")
    with Workers(args.workers) as workers:
        base(out, size, workers)
        say(f"warm start on careless demonstrations: {', '.join(size.rewards)}")
        warm(out, size, workers)
        say(f"GRPO: {', '.join(size.rewards)} x {size.seeds} seed(s), {size.steps} steps each")
        reinforce(out, size, workers)
    say(f"evaluation through lm_eval: {', '.join(size.settings)}")
    trained = evaluate(out, size, args.workers)
    say("leaderboard, curves, test over seeds")
    good = report.write(out, size, trained, time.time() - started)
    return 0 if good else 1


def _settle(out: Path, size: Size) -> None:
    """Keep the size beside the runs, so that a folder is continued only with the size it was begun with."""
    path, text = out / "size.json", json.dumps(asdict(size), indent=1)
    if path.is_file() and path.read_text() != text:
        raise IcrError(f"{out} holds a demonstration of another size ({path.name}); use another -o")
    if not path.is_file() and any(out.iterdir()):
        raise IcrError(f"{out} is not empty and holds no demonstration; use another -o")
    write_atomic(path, text.encode())


class _Say:
    """Numbered stage titles."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def __call__(self, text: str) -> None:
        self.done += 1
        print(f"[{self.done}/{self.total}] {text}", file=sys.stderr, flush=True)
