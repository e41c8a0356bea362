"""A checkpoint is whole or not there, says where it comes from, and loads in lm_eval as it is."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import trainkit
import yaml

from icr_tasks.errors import IcrError
from icr_tasks.training import checkpoint, evaluate, trainers

pytest.importorskip("trl", reason="training needs icr-tasks[train]")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = trainkit.make(tmp_path_factory.mktemp("checkpoint"))
    trainers.train_sft(trainkit.config(root, "sft", "run"))
    return root


def test_card_and_record(root: Path) -> None:
    folder = checkpoint.latest(root / "run")
    found = json.loads((folder / "icr.json").read_text())
    assert (found["kind"], found["step"], found["prompt"]) == ("sft", 2, "ao") and len(
        found["data_hash"]
    ) == 16
    assert found["config"]["trl"]["learning_rate"] == 1e-3 and found["metrics"]["loss"] > 0
    text = (folder / "README.md").read_text()
    assert found["data_hash"] in text and found["config_hash"] in text and str(root) not in text
    assert yaml.safe_load(text.split("---")[1])["tags"] == ["icr-tasks", "trl", "sft"]


def test_a_full_disk_keeps_the_previous_checkpoint(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    real, run = torch.save, root / "full"

    def save(value: object, target: object, *args: object, **kwargs: object) -> None:
        if "checkpoint-4" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(value, target, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    config = trainkit.config(root, "sft", "full", epochs=2)
    with pytest.raises(IcrError, match="cannot save checkpoint-4 .*checkpoint-2 is whole"):
        trainers.train_sft(config)
    assert [p.name for p in checkpoint.all_of(run)] == ["checkpoint-2"] and not (
        run / checkpoint.STAGING
    ).exists()
    AutoModelForCausalLM.from_pretrained(run / "checkpoint-2")
    monkeypatch.undo()
    assert trainers.train_sft(config).name == "checkpoint-4"  # space is free again: the same command goes on


def test_old_checkpoints_go_only_when_asked(root: Path) -> None:
    trainers.train_sft(trainkit.config(root, "sft", "few", epochs=3, trl={"save_total_limit": 1}))
    assert [p.name for p in checkpoint.all_of(root / "few")] == ["checkpoint-6"]


def test_eval_runs_checkpoint_and_base_through_lm_eval_and_the_gate(
    root: Path, capsys: pytest.CaptureFixture
) -> None:
    out, folder = root / "eval", checkpoint.latest(root / "run")
    code = evaluate.main(
        [
            str(folder),
            "--tasks",
            "icr_synth_short_128",
            "--engine",
            "hf",
            "--model-args",
            "device=cpu",
            "--limit",
            "6",
            "--max-gen-toks",
            "6",
            "-o",
            str(out),
        ]
    )
    assert code in (0, 1)
    text = (out / "eval.md").read_text()
    assert "run@2" in text and ("PASS" in text or "INCONCLUSIVE" in text or "REGRESSED" in text)
    heads = [json.loads(p.read_text()) for p in (out / "results").rglob("run.json")]
    assert sorted(h["model"]["id"] for h in heads) == ["base", "run@2"] and {h["prompt"] for h in heads} == {
        "ao"
    }


def test_eval_names_what_is_no_checkpoint(root: Path) -> None:
    with pytest.raises(IcrError, match="it holds checkpoint-2"):
        evaluate.main([str(root / "run"), "--tasks", "icr_synth_short_128"])


def test_eval_takes_settings_with_options_and_names_an_argument_without_a_value(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(evaluate, "run", lambda tree, *_, **__: asked.append(tree["settings"]) or 0)
    words = [str(checkpoint.latest(root / "run")), "--tasks", "icr_synth_short_128"]
    assert evaluate.main([*words, "--settings", "full,rag@4k,dense,depth=50, kv:snapkv@0.3,window=8"]) == 0
    assert asked == [["full", "rag@4k,dense,depth=50", "kv:snapkv@0.3,window=8"]]
    with pytest.raises(IcrError, match="'device' has no value; write key=value"):
        evaluate.main([*words, "--model-args", "device"])


@pytest.mark.parametrize("save", ["merged", "adapter"])
def test_lora_checkpoints_load_as_they_are(root: Path, save: str) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = trainkit.config(
        root, "sft", f"lora-{save}", lora={"r": 4, "alpha": 8, "save": save}, trl={"learning_rate": 1e-2}
    )
    folder = trainers.train_sft(config)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert (folder / "config.json").is_file() == (save == "merged")
    base = AutoModelForCausalLM.from_pretrained(root / "base")
    ids = torch.tensor([tokenizer("Question: Who wrote The Silent Lantern of Corburg?")["input_ids"]])
    with torch.no_grad():
        got, plain = model(ids).logits, base(ids).logits
        assert not torch.allclose(got, plain, atol=1e-4)
        if save == "merged":
            from peft import PeftModel

            adapted = PeftModel.from_pretrained(base, str(folder / checkpoint.ADAPTER))
            assert torch.allclose(got, adapted(ids).logits, atol=1e-4)
    assert tokenizer.chat_template and (folder / "generation_config.json").is_file()
    longer = trainkit.config(
        root, "sft", f"lora-{save}", lora={"r": 4, "alpha": 8, "save": save}, trl={"learning_rate": 1e-2}
    )
    assert trainers.train_sft(longer) == folder  # continued from the adapter: nothing left to do
