"""A run that is killed goes on as if nothing had happened: same steps, same rows, same weights, also in epoch
2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trainkit

from icr_tasks.errors import IcrError
from icr_tasks.training import checkpoint, trainers
from icr_tasks.training.rewards import for_trl

pytest.importorskip("trl", reason="training needs icr-tasks[train]")
STEPS = 8  # 8 rows, 2 prompts a step, 2 epochs


def _ids(run: Path) -> list[tuple[int, str, str]]:
    import pyarrow.parquet as pq

    base = [r for p in sorted((run / "completions").glob("*.parquet")) for r in pq.read_table(p).to_pylist()]
    return [(r["step"], r["id"], r["completion"]) for r in base]


def _weights(run: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(checkpoint.latest(run) / "model.safetensors")


def arbitrary(completions: list, **_: object) -> list[float]:
    """A reward that differs within a group even for an untrained model, so that weights move."""
    return [sum(map(ord, for_trl.text_of(c))) % 7 / 7 for c in completions]


def named(function):  # type: ignore[no-untyped-def]
    """TRL logs a reward under its name."""
    function.__name__ = "ao"
    return function


def test_kill_in_the_second_epoch_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import load_file

    monkeypatch.setattr(trainers, "reward_function", lambda *_: named(arbitrary))

    root = trainkit.make(tmp_path)
    config = trainkit.config(root, "grpo", "killed", epochs=2)
    (root / "config.yaml").write_text(config.dump())
    # The child stops for good inside step 7, after checkpoint-6 of 8; the parent kills it there with SIGKILL.
    code = (
        "import sys, time\n"
        "import test_training_resume as kit\n"
        "from icr_tasks.training import config, trainers\n"
        "def slow(**k):\n"
        "    if k['trainer_state'].global_step == 6: print('STOP', flush=True); time.sleep(600)\n"
        "    return kit.arbitrary(**k)\n"
        "trainers.reward_function = lambda *_: kit.named(slow)\n"
        "trainers.train_grpo(config.load(sys.argv[1]))\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(root / "config.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
    )
    torch.set_num_threads(1)
    whole = trainkit.config(root, "grpo", "whole", epochs=2)
    trainers.train_grpo(whole)  # meanwhile: the run without interruption
    assert child.stdout is not None
    for line in child.stdout:
        if "STOP" in line:
            break
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    run = root / "killed"
    assert checkpoint.step_of(checkpoint.latest(run)) == 6
    partial = run / checkpoint.STAGING / "checkpoint-8"  # as a kill while saving leaves it
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(b"half")

    last = trainers.train_grpo(config)
    assert checkpoint.step_of(last) == STEPS == checkpoint.step_of(checkpoint.latest(root / "whole"))
    assert _ids(run) == _ids(root / "whole")  # rows and sampled completions of every step
    mine, reference = _weights(run), _weights(root / "whole")
    assert all(torch.equal(mine[k], reference[k]) for k in reference)
    start = load_file(root / "base" / "model.safetensors")
    assert not all(torch.equal(start[k], reference[k]) for k in reference)  # the steps did something
    assert not (run / checkpoint.STAGING).exists()


def test_sft_resumes_in_epoch_two_with_the_same_rows(tmp_path: Path) -> None:
    import torch

    root = trainkit.make(tmp_path)
    whole = trainkit.config(root, "sft", "whole", epochs=2)
    trainers.train_sft(whole)
    checkpoint.latest(root / "whole").rename(tmp_path / "reference")
    assert checkpoint.step_of(checkpoint.latest(root / "whole")) == 2  # 2 steps an epoch
    trainers.train_sft(whole)  # goes on from the checkpoint before
    from safetensors.torch import load_file

    mine, reference = _weights(root / "whole"), load_file(tmp_path / "reference" / "model.safetensors")
    assert all(torch.equal(mine[k], reference[k]) for k in reference)


def test_changed_data_are_noticed(tmp_path: Path) -> None:
    from icr_tasks.training.demo import base

    root = trainkit.make(tmp_path)
    config = trainkit.config(root, "sft", "run", trl={"max_steps": 1})
    trainers.train_sft(config)
    base.save(root / "data", base.rows(8, [6], "ao", seed=1), {"n": 8, "seed": 1})
    with pytest.raises(IcrError, match="changed since the run"):
        trainers.train_sft(config)
