"""Dry runs of shipped training configs: `icr train launch` with two gloo processes on the CPU and a model of a
few thousand parameters, to a checkpoint, and once more from the checkpoint before it.

    python tests/dry_runs.py [CONFIG ...] [-o FOLDER]     # default: every shipped config; minutes each

What a config says about rewards, prompts, LoRA, losses, updates a rollout, order and checkpoints stays; sizes,
lengths and what needs a GPU (vLLM, bf16, offloading) are replaced, as `SMALL` and `overrides` say.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P leaves it out

import trainkit

from icr_tasks.training import checkpoint
from icr_tasks.training import config as configs
from icr_tasks.training.demo import base
from icr_tasks.training.demo.forms import FIVE
from icr_tasks.training.study.judge import served

PORT = 8757
RUNS = tuple(sorted(p.name for p in configs.SHIPPED.glob("*.yaml") if not p.name.startswith("_")))
SMALL: dict[str, Any] = {
    "devices": 2,
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


def launch(name: str, root: Path, **more: Any) -> str:
    """What `icr train launch NAME ... --accelerate cpu` printed. AssertionError with its end when it fails."""
    given = overrides(name) | {"model": str(root / "base"), "data": str(root / "data")} | more
    words = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "icr_tasks.cli", "train", "launch", name, *words, "--accelerate", "cpu"],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, f"{name}:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout


def check(name: str, root: Path) -> str:
    """From the launch to a checkpoint, back to the one before, and to the same weights again. One line."""
    out = root / name.removesuffix(".yaml")
    # both checkpoints keep their state here; the second launch has the config's own retention
    launch(name, root, output=str(out), keep_states=0)
    saved = checkpoint.all_of(out)
    assert len(saved) == 2, f"{name}: {[p.name for p in saved]}"
    weights = next(saved[1].glob("*.safetensors")).read_bytes()
    shutil.rmtree(saved[1])
    said = launch(name, root, output=str(out))
    assert f"continuing from {saved[0]}" in said, said[-1500:]
    same = next(saved[1].glob("*.safetensors")).read_bytes() == weights
    config = configs.load(saved[1].parent / "config.yaml")
    kept = [checkpoint.resumable(p) for p in checkpoint.all_of(out)]
    assert kept[-1] and (sum(kept) == config.keep_states or not config.keep_states), (name, kept)
    record = json.loads((saved[1] / "icr.json").read_text())
    assert record["prompt"] == config.prompt and record["step"] == checkpoint.step_of(saved[1])
    assert yaml.safe_load((out / "config.yaml").read_text())["devices"] == 2
    return f"{saved[1].name} from {saved[0].name}, {'the same' if same else 'OTHER'} weights"


def main(argv: list[str]) -> int:
    """The number of configs that failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="*", default=RUNS)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args(argv)
    root = files((args.out or Path(tempfile.mkdtemp())).resolve())
    failed = 0
    with served(PORT):
        for name in args.config:
            began = time.monotonic()
            try:
                text = check(name, root)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failed += 1
                text = f"FAILED: {error}"
            print(f"{name:<26} {time.monotonic() - began:5.0f} s  {text}", flush=True)
    print(f"{len(args.config) - failed} of {len(args.config)} configs reached a resumed checkpoint")
    return failed


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
