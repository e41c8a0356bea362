"""The CUDA backend. Its reading of FlashAttention's paged cache is checked anywhere; the whole only where a
GPU is."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import test_kv_vllm as shared  # noqa: E402

DENSE, SPARSE = "topk@1.0,sink=2,window=8,update=12", shared.SETTING
NO_GPU = "needs an NVIDIA GPU: the ICR_KV backend on CUDA is built on FlashAttention's cache, and torch sees no GPU here"


def test_slots_are_read_as_flash_attention_writes_them() -> None:
    """FlashAttention writes through `kv_cache.transpose(1, 2).split(dim, -1)` (vllm 0.32,
    do_kv_cache_update)."""
    from icr_tasks.kv.vllm.sparse import paged

    blocks, heads, size, dim = 5, 2, 4, 3
    kv_cache = torch.zeros(blocks, heads, size, 2 * dim)
    keys, values = kv_cache.transpose(1, 2).split(dim, dim=-1)
    new = torch.randn(7, 2, heads, dim)
    slots = torch.tensor([9, 3, 0, 19, 8, 4, 11])
    for slot, (key, value) in zip(slots.tolist(), new, strict=True):
        keys[slot // size, slot % size], values[slot // size, slot % size] = key, value
    found = paged(kv_cache, slots, dim)
    assert torch.equal(found[0], new[:, 0].transpose(0, 1))
    assert torch.equal(found[1], new[:, 1].transpose(0, 1))


def _case(model: Path, prompts: Path, setting: str) -> dict[str, Any]:
    env = {
        **os.environ,
        "ICR_KV": setting,
        "CASE_BLOCKS": "40",
        "CASE_DTYPE": "bfloat16",
        "CASE_BACKEND": "ICR_KV",
        "CASE_ENGINES": "plain,chunked,graphs",
    }
    env.pop("ICR_KV_COUNTERS", None)
    script = str(Path(__file__).with_name("kv_vllm_case.py"))
    command = [sys.executable, script, str(model), str(prompts), str(shared.N_NEW)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_on_a_gpu_it_agrees_with_transformers(tmp_path: Path) -> None:
    """bfloat16 (FlashAttention has no float32), so: the same first tokens, and close log-probabilities while
    they agree.

    The chunked engine has prefix caching and mixed lengths; `graphs` replays CUDA graphs of 1, 2, 4 and 6 rows, the last
    with rows that are no request. With budget 1 the answers are those of dense decoding.
    """
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM beside the GPU")
    rng = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 250, (n,), generator=rng).tolist() for n in shared.LENGTHS]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    model = shared._model(tmp_path / "model")
    agreed = {}
    for setting, reference in ((SPARSE, SPARSE), (DENSE, None)):
        found = _case(model, tmp_path / "prompts.json", setting)
        expected = shared._reference(model, prompts, reference)
        for engine in ("plain", "chunked", "graphs"):
            pairs = zip(found[engine]["answers"][0], expected, strict=True)
            agreed[setting, engine] = [_agree(ours, theirs) for ours, theirs in pairs]
            assert sum(agreed[setting, engine]) >= len(prompts) * shared.N_NEW // 3, agreed
        plain, graphs = found["plain"]["counts"], found["graphs"]["counts"]
        assert {**plain, "build_seconds": 0} == {**graphs, "build_seconds": 0}
        assert plain["steps"] == len(prompts) * (shared.N_NEW - 1)
        share = plain["tokens_read"] / plain["tokens_full"]
        if setting == DENSE:
            assert share == pytest.approx(1) and not plain["sparse_steps"]
        else:
            assert 0.05 < share < 0.3 and plain["sparse_steps"] == plain["steps"]


def _agree(ours: tuple[list[int], list[float]], theirs: tuple[list[int], list[float]]) -> int:
    """Tokens up to the first that differs; their log-probabilities must be close."""
    n = next((i for i, (a, b) in enumerate(zip(ours[0], theirs[0], strict=True)) if a != b), len(ours[0]))
    assert ours[1][:n] == pytest.approx(theirs[1][:n], abs=0.25)
    return n
