"""`icr train launch CONFIG [key=value ...]`: check, prepare, then start as many processes as the config is
written for.

icr train launch grpo_ao.yaml data=data output=runs/ao                  # accelerate with fsdp2.yaml, 8 processes
icr train launch sft_ao.yaml --accelerate zero3 --dry-run               # prints the command
icr train launch my.yaml --accelerate my_accelerate.yaml

Rows are rendered and counted here, on all cores, before any GPU is taken: no process waits for another one to
do it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from icr_tasks.checked import read_yaml
from icr_tasks.errors import IcrError, install_hint, unknown

from . import checks, plan, prepare
from .config import SHIPPED, Config, load

FOLDER = SHIPPED / "accelerate"
CPU = "cpu"  # gloo processes by torchrun: a dry run of a launch where there is no GPU
_SHORT = {"zero3": "deepspeed_zero3"}


def accelerate_file(name: str) -> Path:
    """A file, or one that ships by its name with or without .yaml. IcrError with the nearest match."""
    path = Path(name)
    if path.is_file():
        return path.resolve()
    stem = _SHORT.get(path.stem, path.stem)
    shipped = {p.stem: p for p in FOLDER.glob("*.yaml")}
    if stem not in shipped:
        raise unknown("accelerate config", name, [*shipped, *_SHORT, CPU])
    return shipped[stem]


def resolved(words: Sequence[str]) -> list[str]:
    """A launch command with the shipped names after --config_file as paths; `icr` and `python` as this
    interpreter's."""
    out = list(words)
    for i, word in enumerate(out):
        if word == "--config_file" and i + 1 < len(out):
            out[i + 1] = str(accelerate_file(out[i + 1]))
        elif word.startswith("--config_file="):
            out[i] = f"--config_file={accelerate_file(word.partition('=')[2])}"
    if out[:1] == ["accelerate"]:
        out[:1] = [sys.executable, "-m", "accelerate.commands.accelerate_cli"]
    return out


def shared(accelerate: str) -> int:
    """Processes that share a sequence under an accelerate config."""
    path = accelerate_file(accelerate)
    tree = read_yaml(path.read_text(encoding="utf-8"), path) or {}
    return int((tree.get("parallelism_config") or {}).get("parallelism_config_cp_size", 1))


def command(config: Config, accelerate: str, given: str, overrides: Sequence[str]) -> list[str]:
    """What starts the run: plain Python for one process, accelerate for more."""
    train = ["-m", "icr_tasks.cli", "train", config.kind, given, *overrides]
    if config.devices == 1 and not accelerate:
        return [sys.executable, *train]
    accelerate = accelerate or (f"cp{config.context_parallel}" if config.context_parallel > 1 else "fsdp2")
    checks.split(config, 1 if accelerate == CPU else shared(accelerate), f"accelerate config {accelerate}")
    if accelerate == CPU:
        nodes = ["--standalone", "--nproc_per_node", str(config.devices)]
        return [sys.executable, "-m", "torch.distributed.run", *nodes, *train]
    words = [
        "accelerate",
        "launch",
        "--config_file",
        accelerate,
        "--num_processes",
        str(config.devices),
    ]
    return resolved(words) + train


def main(argv: list[str]) -> int:
    """The launched command's exit code."""
    parser = argparse.ArgumentParser(
        prog="icr train launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a YAML file, or the name of one that ships (grpo_ao.yaml)")
    parser.add_argument("overrides", nargs="*", help="key=value, such as output=runs/a")
    parser.add_argument(
        "--accelerate",
        default="",
        help="fsdp2 (default), fsdp2_offload, zero3, cp4 (default with context_parallel: 4), cpu, or a file",
    )
    parser.add_argument("--dry-run", action="store_true", help="check and print the command")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that prepare the rows"
    )
    args = parser.parse_intermixed_args(argv)
    config = load(args.config, args.overrides)
    words = command(config, args.accelerate, args.config, args.overrides)
    path, resume = prepare.check(config, launched=False)
    print(plan.text(config, path), flush=True)
    if resume:
        print(f"  continues from {resume}", flush=True)
    print(shlex.join(words), flush=True)
    if args.dry_run:
        return 0
    plan.refuse_empty(config, path)
    prepare.ready(config, path, args.workers)
    # `-m` would look for icr_tasks in the working folder first, which may be a checkout whose parts lie elsewhere
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONSAFEPATH": "1"}
    if args.accelerate == CPU:
        env |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(words, env=env).returncode
    except FileNotFoundError as error:
        raise IcrError(f"{words[0]} cannot be started ({error}); {install_hint('train')}") from error
