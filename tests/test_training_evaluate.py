"""Which ledgers a checkpoint is judged by, and how an adapter is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="training needs trl (extra [train])")
import trainkit

from icr_tasks.training import checkpoint, evaluate

LEDGER = next(
    (Path(__file__).resolve().parent.parent / "results" / "SmolLM2-135M-Instruct" / "full").iterdir()
)


@pytest.mark.parametrize("last", ["aaaaaaaaaaaa", "cccccccccccc"])
def test_the_run_that_began_last_counts_and_that_is_said(
    last: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = json.loads((LEDGER / "run.json").read_text())["started"]
    for name in ("aaaaaaaaaaaa", "cccccccccccc"):
        folder = tmp_path / "model" / "full" / name
        shutil.copytree(LEDGER, folder)
        head = json.loads((folder / "run.json").read_text())
        head |= {"fingerprint": name, "started": began + (100 if name == last else 0)}
        (folder / "run.json").write_text(json.dumps(head))
    (run,) = evaluate.newest(tmp_path).values()
    assert run.fingerprint == last and f"{last} counts" in capsys.readouterr().err


@pytest.mark.parametrize(("r", "most"), [(16, None), (24, 32), (64, 64)])
def test_an_adapter_is_given_its_rank(r: int, most: int | None, tmp_path: Path) -> None:
    """lm_eval's vllm takes adapters up to rank 16 unless it is told, in steps that vLLM names."""
    config = trainkit.config(trainkit.make(tmp_path), "grpo", "out", lora={"r": r, "save": "adapter"})
    found = checkpoint.record(config, data_hash="", order="", step=8, metrics={}, truncation="")
    folder = tmp_path / "out" / "checkpoint-8"
    folder.mkdir(parents=True)
    (folder / "icr.json").write_text(json.dumps(found))
    assert evaluate._weights(evaluate.read(folder), "icr-vllm").get("max_lora_rank") == most
    assert (f"max_lora_rank={most} " in checkpoint.card(found, "x")) == (most is not None)
