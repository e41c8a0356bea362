"""Dry runs of shipped training configs: `icr train launch` with two gloo processes on the CPU and a model of a
few thousand parameters, to a checkpoint, and once more from the checkpoint before it.

    python tests/dry_runs.py [CONFIG ...] [-o FOLDER]     # default: every shipped config
    python tests/dry_runs.py --torchrun sft_ao.yaml       # processes started anew, as a launch does: minutes each

Importing TRL takes longer than the runs, so all processes are forked from this one, which has it loaded; with
--torchrun the launch starts them itself.
Prints the table of docs/training.md; the exit status is the number of configs that failed. What a config says
about rewards, prompts, LoRA, losses, updates a rollout, order and checkpoints stays; sizes, lengths and what
needs a GPU (vLLM, bf16, offloading) are replaced, as `SMALL` and `overrides` say.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P leaves it out

import trainkit

from icr_tasks.cli import main as cli
from icr_tasks.training import checkpoint
from icr_tasks.training import config as configs
from icr_tasks.training import launch as launcher
from icr_tasks.training.demo import base
from icr_tasks.training.demo.forms import FIVE
from icr_tasks.training.study.judge import served

PORT = 8757
RUNS = tuple(sorted(p.name for p in configs.SHIPPED.glob("*.yaml") if not p.name.startswith("_")))
SMALL: dict[str, Any] = {
    "devices": 2,
    "context_parallel": 1,  # gloo has none
    "epochs": 1,
    "max_prompt_length": 4096,
    "max_response_length": 6,
    "trl.use_cpu": True,
    "trl.bf16": False,
    "trl.gradient_checkpointing": False,
    "trl.gradient_accumulation_steps": 1,
    "trl.logging_steps": 1,
    "trl.disable_tqdm": True,
    "trl.learning_rate": 1e-3,
}


def files(root: Path) -> Path:
    """`root/base` and `root/data`, which holds 16 rows of the short world."""
    if not (root / "data").is_dir():
        base.build(root / "base", seed=0, width=32, head=16, formats=FIVE)
        base.save(root / "data", (trainkit.plain(r) for r in base.rows(16, [6], "ao", seed=0)), {"n": 16})
    return root


def overrides(name: str) -> dict[str, Any]:
    """What makes a shipped config small enough, `key -> value`."""
    tree = configs.read(Path(name))
    found = dict(SMALL)
    if tree["kind"] == "sft":
        found |= {
            "trl.per_device_train_batch_size": 4,
            "trl.save_steps": 1,
            "trl.activation_offloading": False,
        }
        return found
    trl = tree["trl"]
    updates = trl["steps_per_generation"] // trl["gradient_accumulation_steps"]
    group = trl["num_generations"]
    # 16 rows are two rollouts of 2 x `updates` groups or more, with a checkpoint after each of them
    return found | {
        "trl.use_vllm": False,
        "trl.vllm_enable_sleep_mode": False,
        "trl.vllm_tensor_parallel_size": 1,
        "trl.per_device_train_batch_size": group * 4 // updates,
        "trl.steps_per_generation": updates,
        "trl.save_steps": updates,
        **(
            {"reward.judge": {"base_url": f"http://127.0.0.1:{PORT}/v1", "model": "constructed"}}
            if tree["reward"]["name"] in ("judge", "hybrid")
            else {}
        ),
    }


def forked(work: Callable[[], int]) -> int:
    """The process id of a fork of this one that does `work` and ends with its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pids: Sequence[int]) -> int:
    """The highest exit code of forks that have ended. Where one fails, the others would wait for it: they are
    ended."""
    left, worst = set(pids), 0
    while left:
        pid, status = os.waitpid(-1, 0)
        left.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        worst = max(worst, abs(code))
        if code:
            for other in left:
                os.kill(other, signal.SIGTERM)
    return worst


def ranks(words: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What torchrun would start, as forks: two ranks that meet at a free port."""
    args = [*words[words.index("icr_tasks.cli") + 1 :]]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = str(SMALL["devices"])

    def rank(number: int) -> int:
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        size = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ.update({**env, **meet, **size, "RANK": str(number), "LOCAL_RANK": str(number)})
        return cli(args)

    found = [forked(functools.partial(rank, number)) for number in range(int(world))]
    return subprocess.CompletedProcess([*words], ended(found))


def launch(name: str, root: Path, fork: bool, **more: Any) -> str:
    """What `icr train launch NAME ... --accelerate cpu` printed. AssertionError with its end when it fails."""
    given = overrides(name) | {"model": str(root / "base"), "data": str(root / "data")} | more
    words = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    args = ["train", "launch", name, *words, "--accelerate", "cpu"]
    log = root / f"{name}.log"
    with log.open("w+") as out:
        if fork:

            def work() -> int:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
                os.chdir(root)
                launcher.subprocess = SimpleNamespace(run=ranks)
                return cli(args)

            code = ended([forked(work)])
        else:
            command = [sys.executable, "-P", "-m", "icr_tasks.cli", *args]
            code = subprocess.run(command, stdout=out, stderr=out, timeout=900, cwd=root).returncode
    said = log.read_text()
    assert code == 0, f"{name}:\n{said[-4000:]}"
    return said


def check(name: str, root: Path, fork: bool = True) -> str:
    """From the launch to a checkpoint, back to the one before, and to the end again: `steps | what came of it`."""
    out = root / name.removesuffix(".yaml")
    # both checkpoints keep their state here; the second launch has the config's own retention
    launch(name, root, fork, output=str(out), keep_states=0)
    saved = checkpoint.all_of(out)
    assert len(saved) == 2, f"{name}: {[p.name for p in saved]}"
    weights = next(saved[1].glob("*.safetensors")).read_bytes()
    shutil.rmtree(saved[1])
    said = launch(name, root, fork, output=str(out))
    assert f"continuing from {saved[0]}" in said, said[-1500:]
    same = next(saved[1].glob("*.safetensors")).read_bytes() == weights
    config = configs.load(saved[1].parent / "config.yaml")
    kept = [checkpoint.resumable(p) for p in checkpoint.all_of(out)]
    assert kept[-1] and (sum(kept) == config.keep_states or not config.keep_states), (name, kept)
    record = json.loads((saved[1] / "icr.json").read_text())
    assert record["prompt"] == config.prompt and record["step"] == checkpoint.step_of(saved[1])
    assert yaml.safe_load((out / "config.yaml").read_text())["devices"] == 2
    step, first = checkpoint.step_of(saved[1]), checkpoint.step_of(saved[0])
    return f"{step} | from step {first}, {'the same' if same else 'other'} weights"


def main(argv: list[str]) -> int:
    """The number of configs that failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="*", default=RUNS)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--torchrun", action="store_true", help="processes started anew, as a launch does")
    args = parser.parse_args(argv)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    root = files((args.out or Path(tempfile.mkdtemp())).resolve())
    if not args.torchrun:
        from trl import GRPOTrainer, SFTTrainer  # noqa: F401  loaded once, for all forks
    failed = 0
    print("| config | processes | steps | resumed | seconds |\n|---|---:|---:|---|---:|", flush=True)
    with served(PORT):
        for name in args.config:
            began = time.monotonic()
            try:
                text = check(name, root, fork=not args.torchrun)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failed += 1
                text = "– | FAILED, see stderr"
                print(error, file=sys.stderr, flush=True)
            print(f"| `{name}` | 2 | {text} | {time.monotonic() - began:.0f} |", flush=True)
    print(f"{len(args.config) - failed} of {len(args.config)} configs reached a resumed checkpoint")
    return failed


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
