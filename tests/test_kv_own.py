"""What a model that compresses by design keeps in vLLM: bytes of its own cache, asked of the workers that made it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace as Bag
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from icr_tasks.kv.vllm import own  # noqa: E402

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")
WINDOW = 64


@needs_vllm
def test_each_kind_of_cache_is_counted_as_vllm_allocates_it() -> None:
    from vllm.v1 import kv_cache_interface as kinds

    shape: dict[str, Any] = {"block_size": 16, "num_kv_heads": 2, "head_size": 32, "dtype": torch.float16}
    token = 2 * 2 * 32 * 2  # keys and values, heads, numbers, bytes
    full = kinds.FullAttentionSpec(**shape)
    window = kinds.SlidingWindowSpec(**shape, sliding_window=WINDOW)
    chunk = kinds.ChunkedLocalAttentionSpec(**shape, attention_chunk_size=32)
    merged = kinds.FullAttentionSpec(**shape, sliding_window=WINDOW)  # vLLM without groups: all of it is kept
    latent = kinds.MLAAttentionSpec(**{**shape, "num_kv_heads": 1, "head_size": 40})
    state = kinds.MambaSpec(block_size=512, shapes=((3, 8), (4, 4)), dtypes=(torch.float32, torch.float32))
    groups = [
        Bag(layer_names=["a", "b"], kv_cache_spec=full),
        Bag(layer_names=["c"], kv_cache_spec=window),
        Bag(layer_names=["d"], kv_cache_spec=chunk),
        Bag(layer_names=["e"], kv_cache_spec=merged),
        Bag(layer_names=["f"], kv_cache_spec=latent),
        Bag(layer_names=["g"], kv_cache_spec=state),
        Bag(layer_names=["h"], kv_cache_spec=Bag(kv_cache_specs={"h": full})),
    ]
    found = own.layers(groups)
    block = 16 * token
    assert found[:5] == [[block, 16, 0]] * 2 + [[block, 16, WINDOW], [block, 16, 32], [block, 16, 0]]
    assert found[5:] == [[16 * 40 * 2, 16, 0], [4 * (24 + 16), 0, 0], [block, 16, 0]]
    n = 100
    for layers, expected in (
        (found[:2], 2 * n * token),
        (found[2:3], WINDOW * token),
        (found[3:4], 32 * token),
        (found[5:6], n * 40 * 2),
        (found[6:7], 160),
    ):
        assert own.held([layers], n) == expected
        assert own.held([layers, layers], n) == 2 * expected, "each rank has a share of its own"
    assert own.held([found[2:3]], 10) == 10 * token


@needs_vllm
def test_a_run_in_vllm_records_the_bytes_of_the_models_own_cache(tmp_path: Path) -> None:
    import tiny
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    fast = tiny.tokenizer()
    config = Gemma3TextConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        sliding_window=WINDOW,
        max_position_embeddings=4096,
        eos_token_id=fast.eos_token_id,
    )
    torch.manual_seed(0)
    Gemma3ForCausalLM(config).save_pretrained(tmp_path / "model")
    fast.save_pretrained(tmp_path / "model")
    args = f"pretrained={tmp_path / 'model'},dtype=float32,max_model_len=4096,enforce_eager=True"
    env = {k: v for k, v in os.environ.items() if not k.startswith("ICR_KV")}
    command = [Path(sys.executable).with_name("lm_eval"), "--tasks", "icr_synth_rag_512", "--limit", "2"]
    command += ["--model", "icr-vllm", "--model_args", args, "--output_path", tmp_path / "out"]
    command += ["--log_samples", "--gen_kwargs", "max_gen_toks=4", "--metadata", '{"setting":"kv:native"}']
    done = subprocess.run(
        [str(part) for part in command],
        env={**env, "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    [file] = (tmp_path / "out").rglob("samples_*.jsonl")
    digests = [json.loads(json.loads(line)["arguments"]["gen_args_0"]["arg_0"]) for line in file.open()]
    assert len(digests) == 2
    token = 2 * 2 * 32 * 4  # of a layer
    for digest in digests:
        kinds = {"sliding_attention": 2, "full_attention": 1}
        n = digest["engine_tokens"]["prompt"]
        assert n > WINDOW
        assert digest["kv"]["native"] == {"layers": kinds, "bytes": (n + 2 * WINDOW) * token}
