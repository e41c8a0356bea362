"""The arithmetic of `--plan`: what it counts is what a run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="training needs trl (extra [train])")
import trainkit

from icr_tasks.errors import IcrError
from icr_tasks.training import config as configs
from icr_tasks.training import launch, plan, prepare


@pytest.mark.parametrize(
    ("trl", "steps", "saves"),
    [
        ({}, 4, 2),
        ({"max_steps": 3}, 3, 2),
        ({"save_steps": 0.25}, 4, 4),
        ({"save_strategy": "no"}, 4, 1),  # the end of a run is always saved
        ({"save_strategy": "epoch"}, 4, 1),  # all epochs are one to the trainer
        ({"max_steps": 9, "save_steps": 4}, 9, 3),
    ],
)
def test_the_plan_counts_the_steps_and_checkpoints_that_a_run_has(
    trl: dict[str, Any], steps: int, saves: int, tmp_path: Path
) -> None:
    root = trainkit.make(tmp_path, n=8)
    config = trainkit.config(root, "sft", "out", epochs=2, trl=trl)
    found = plan.of(config, root / "data" / "train.parquet")
    assert (found.steps, found.saves) == (steps, saves)


def test_processes_that_share_a_sequence_do_not_multiply_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With context parallelism two groups of four cards see two rows, not eight."""
    root = trainkit.make(tmp_path, n=64)
    words = [f"model={root / 'base'}", f"data={root / 'data'}", f"output={tmp_path / 'out'}"]
    config = configs.load("sft_cp4.yaml", words)
    assert config.replicas == 2
    path = root / "data" / "train.parquet"
    assert (
        plan.of(config, path).completions
        == plan.of(configs.load("sft_ao.yaml", words), path).completions
        == 64
    )
    text = plan.text(config, path)
    assert "8 process(es), 4 to a sequence" in text and "64 rows an update" in text and "decoding" not in text
    assert "of up to 131,008 prompt tokens (not counted yet)" in text
    assert launch.shared("cp4") == 4 and launch.shared("fsdp2") == 1
    launched = launch.command(config, "", "sft_cp4.yaml", [])
    assert launched[launched.index("--config_file") + 1].endswith("cp4.yaml")
    for other in ("fsdp2", "cpu"):
        with pytest.raises(IcrError, match="among 1 process.*context_parallel 4"):
            launch.command(config, other, "sft_cp4.yaml", [])
    with pytest.raises(IcrError, match="cp4 shares each sequence among 4 .*context_parallel 1"):
        launch.command(configs.load("sft_ao.yaml"), "cp4", "sft_ao.yaml", [])
    # and in the launched process, whatever started it
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(IcrError, match="this launch shares each sequence among 1 "):
        prepare.check(config)
    monkeypatch.setenv("ACCELERATE_USE_PARALLELISM_CONFIG", "true")
    monkeypatch.setenv("PARALLELISM_CONFIG_CP_SIZE", "4")
    prepare.check(config)
    for override, says in (("devices=6", "does not divide devices 6"), ("context_parallel=0", "at least 1")):
        with pytest.raises(IcrError, match=says):
            configs.load("sft_cp4.yaml", [override, "trl.gradient_accumulation_steps=32"])
    with pytest.raises(IcrError, match="context_parallel is for SFT"):
        configs.load("grpo_ao.yaml", ["context_parallel=4"])
