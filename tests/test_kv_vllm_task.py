"""`icr sweep` with kv=task: one vLLM engine for all settings, with the answers of icr-hf under each."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
SETTINGS = ["full", "kv:topk@0.02,sink=2,window=8", "kv:page@0.02,window=8"]


def _model(folder: Path) -> Path:
    import tiny
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    fast = tiny.tokenizer()
    # wide weights make attention matter, so that reading less changes the answers
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.15,
        eos_token_id=fast.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def _runs(study: Path) -> dict[tuple[str, str], dict[str, Any]]:
    runs = [json.loads(path.read_text()) for path in (study / "results").glob("*/*/*/run.json")]
    return {(run["engine"]["name"], run["setting"]["text"]): run for run in runs}


def _answers(study: Path, engine: str) -> dict[tuple[str, str], str]:
    """(setting, item) -> text. lm_eval's vLLM class shows special tokens, and vLLM holds back a cut UTF-8
    character."""
    found = {}
    for path in (study / "lm_eval").rglob("samples_*.jsonl"):
        (results,) = path.parent.glob("results_*.json")
        if json.loads(results.read_text())["config"]["model"] != engine:
            continue
        config = json.loads(results.read_text())["configs"]["icr_synth_rag_512"]
        setting = config["metadata"]["setting"]
        for sample in map(json.loads, path.read_text().splitlines()):
            found[setting, sample["doc"]["id"]] = (
                sample["resps"][0][0].replace("<|end|>", "").rstrip("\ufffd")
            )
    return found


def test_one_engine_follows_the_settings_of_a_sweep(tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM")
    import yaml

    model = {"pretrained": str(_model(tmp_path / "model")), "dtype": "float32"}
    vllm = {
        **model,
        "kv": "task",
        "max_model_len": 4096,
        "enforce_eager": True,
        "distributed_executor_backend": "uni",
    }
    study = {
        "out": str(tmp_path / "study"),
        "settings": SETTINGS,
        "gen_kwargs": {"max_gen_toks": 12},
        "tasks": [{"task": "icr_synth_rag_512", "limit": 3}],
        "models": [
            {"name": "v", "model": "icr-vllm", "model_args": vllm},
            {"name": "h", "model": "icr-hf", "model_args": {**model, "device": "cpu"}},
        ],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    env = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    env = {k: v for k, v in env.items() if k not in ("ICR_KV", "ICR_KV_COUNTERS")}
    command = [
        sys.executable,
        "-c",
        "from icr_tasks.cli import main; import sys; sys.exit(main())",
        "sweep",
        "study.yaml",
    ]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    study, found = tmp_path / "study", _runs(tmp_path / "study")
    assert set(found) == {(engine, text) for engine in ("icr-vllm", "icr-hf") for text in SETTINGS}
    answers = _answers(study, "icr-vllm")
    assert len(answers) == 3 * len(SETTINGS)
    assert answers == _answers(study, "icr-hf")
    assert len(set(answers.values())) > 3, "the case can tell the settings apart"
    for text in SETTINGS:
        run, hf = found["icr-vllm", text], found["icr-hf", text]
        if text == "full":
            assert run.get("kv") is None
            continue
        assert run["kv"]["steps"] == hf["kv"]["steps"], "one unit in both engines"
        assert run["kv"]["read_fraction"] == pytest.approx(hf["kv"]["read_fraction"], rel=0.01)
        assert run["kv"]["attended_fraction"] == pytest.approx(hf["kv"]["attended_fraction"], rel=0.01)
        assert run["tokens"]["cached"] > 0, "the settings share their prefills"
