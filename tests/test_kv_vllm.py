"""The vLLM backend against the transformers implementation: same model, same prompts, same method, token for
token."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from icr_tasks.errors import IcrError
from icr_tasks.kv import choose

N_NEW = 20
SETTING = "topk@0.05,sink=2,window=8,update=12"
LENGTHS = (
    120,
    250,
    200,
    257,
)  # blocks hold 128 tokens: the first two grow into another block while they answer


def test_names_what_it_cannot_do() -> None:
    assert choose.parse("topk@0.05") == choose.parse("kv:topk@0.05") == "kv:topk@0.05"
    assert choose.parse("snapkv@0.5") == "kv:snapkv@0.5"
    for text in ("cluster", "expected@0.5", "kvzip@0.5", "streaming@0.5", "duo@0.5,scores=x"):
        with pytest.raises(IcrError, match="icr-hf"):
            choose.parse(text)
    with pytest.raises(IcrError, match="topk"):
        choose.parse("topkk@0.5")
    for text in ("keydiff@0.5,every=4", "keydiff@0.5,adaptive"):
        with pytest.raises(IcrError, match="needs --model icr-hf"):
            choose.parse(text)


def test_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from icr_tasks.kv.vllm import counters, plugin

    monkeypatch.delenv("ICR_KV", raising=False)
    monkeypatch.delenv(counters.VARIABLE, raising=False)
    loaded = set(sys.modules)
    plugin.register()
    assert not {m for m in set(sys.modules) - loaded if m.startswith("vllm")}
    assert not any(counters.totals().values())


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
        max_position_embeddings=1024,
        initializer_range=0.15,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def _reference(
    folder: Path, prompts: list[list[int]], setting: str | None
) -> list[tuple[list[int], list[float]]]:
    import torch
    from transformers import AutoModelForCausalLM

    from icr_tasks import kv
    from icr_tasks.kv.hf import attention, decode
    from icr_tasks.settings import Setting

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.set_attn_implementation(attention.register())
    method = None
    if setting:
        parsed = Setting.parse(f"kv:{setting}")
        knobs = {k: v for k, v in parsed.params.items() if k != "split"}
        method = kv.make(str(parsed.method), float(parsed.amount or 0), knobs)
    out = []
    for prompt in prompts:
        job = decode.Job([prompt], N_NEW, frozenset(), keep_logits=True)
        answer = decode.generate(model, job, method)[0]
        logps = [
            float(torch.log_softmax(x.float().flatten(), -1)[t])
            for x, t in zip(answer.logits, answer.tokens, strict=True)
        ]
        out.append((answer.tokens, logps))
    return out


def _run(
    folder: Path, setting: str, engines: str = "plain,chunked,preempted", prefix: str = "on"
) -> dict[str, Any]:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM")
    import numpy as np

    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 250, n).tolist() for n in LENGTHS]
    prompts.append(prompts[1][:240] + prompts[2][:20])  # shares blocks with another prompt
    (folder / "prompts.json").write_text(json.dumps(prompts))
    model = _model(folder / "model")
    env = {
        **os.environ,
        "ICR_KV": setting,
        "CASE_BLOCKS": "6",
        "VLLM_TARGET_DEVICE": "cpu",
        "CASE_ENGINES": engines,
        "CASE_PREFIX": prefix,
    }
    env.pop("ICR_KV_COUNTERS", None)
    command = [
        sys.executable,
        str(Path(__file__).with_name("kv_vllm_case.py")),
        str(model),
        str(folder / "prompts.json"),
        str(N_NEW),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return {
        "vllm": json.loads(done.stdout.strip().splitlines()[-1]),
        "sparse": _reference(model, prompts, setting),
        "dense": _reference(model, prompts, None),
        "prompts": prompts,
    }


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _run(tmp_path_factory.mktemp("kv-vllm"), SETTING)


@pytest.mark.parametrize(
    ("setting", "prefix"),
    [("keydiff@0.3", "on"), ("snapkv@0.3,window=8", "off"), ("chunkkv@0.3,window=8,chunk=5", "off")],
)
def test_an_evictor_reads_its_own_list_for_each_head(tmp_path: Path, setting: str, prefix: str) -> None:
    """Evictors over shared blocks answer as icr-hf's, token for token: prompts in chunks, from the prefix cache (KeyDiff:
    the others need queries that it hides), and computed again after a preemption. Nothing is freed, and so it is counted."""
    case = _run(tmp_path, setting, "chunked,preempted", prefix)
    assert case["vllm"]["preempted"]["preemptions"] > 0
    assert bool(case["vllm"]["chunked"]["prefix_hits"]) == (prefix == "on")
    for engine in ("chunked", "preempted"):
        for answers in case["vllm"][engine]["answers"]:
            assert [tokens for tokens, _ in answers] == [tokens for tokens, _ in case["sparse"]]
    assert any(s[0] != d[0] for s, d in zip(case["sparse"], case["dense"], strict=True))
    counts = case["vllm"]["preempted"]["counts"]
    assert counts["steps"] == counts["sparse_steps"] >= len(case["prompts"]) * (N_NEW - 1)
    assert 0.3 < counts["tokens_read"] / counts["tokens_full"] < 0.4


@pytest.mark.parametrize("engine", ["plain", "chunked", "preempted"])
def test_token_for_token(case: dict[str, Any], engine: str) -> None:
    for answers in case["vllm"][engine]["answers"]:
        for (tokens, logps), (expected, expected_logps) in zip(answers, case["sparse"], strict=True):
            assert tokens == expected
            assert logps == pytest.approx(expected_logps, abs=2e-3)


def test_what_did_not_run_as_asked_is_an_error_of_the_item(case: dict[str, Any]) -> None:
    """A leftover ICR_KV, a backend that something replaced, a method that keeps everything: seen by their effect."""
    found = case["vllm"]["checked"]
    assert found["as asked"] == found["again"] == ""
    for name in ("leftover", "leftover beside rag"):
        assert f"the engine ran {choose.parse(SETTING)}, not" in found[name] and "unset ICR_KV" in found[name]
    assert f"not {choose.parse(SETTING)}" in found["patched away"]
    assert "no compressed step ran" in found["inert"] or "left no key out" in found["inert"]


def test_the_case_can_tell_sparse_from_dense(case: dict[str, Any]) -> None:
    assert any(s[0] != d[0] for s, d in zip(case["sparse"], case["dense"], strict=True))


def test_the_engines_did_what_they_are_named_for(case: dict[str, Any]) -> None:
    assert case["vllm"]["preempted"]["preemptions"] > 0
    assert case["vllm"]["chunked"]["prefix_hits"] > 0
    counts = case["vllm"]["plain"]["counts"]
    # one step a token, whatever the number of layers; the first token of each answer comes from prefill
    assert counts["steps"] == counts["sparse_steps"] == len(case["prompts"]) * (N_NEW - 1)
    assert 0.05 < counts["tokens_read"] / counts["tokens_full"] < 0.3
