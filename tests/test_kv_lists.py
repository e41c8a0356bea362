"""Evictors whose lists need the last queries of a prompt, over the shared blocks of vLLM."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace as Bag
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv import make  # noqa: E402
from icr_tasks.kv.vllm import lists, seam, sparse  # noqa: E402

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")


@needs_vllm
def test_lists_that_need_queries_have_no_prefix_cache() -> None:
    """SnapKV's queries are never seen of a prompt from the prefix cache, and ChunkKV asks all heads of a layer."""
    from icr_tasks.kv.vllm.state import EngineState
    from icr_tasks.settings import Setting

    args: dict[str, Any] = {"kv": "snapkv", "kv_budget": 0.3}
    EngineState(args)
    assert args["enable_prefix_caching"] is False
    with pytest.raises(IcrError, match="enable_prefix_caching=False"):
        EngineState({"kv": "snapkv", "enable_prefix_caching": True})
    with pytest.raises(IcrError, match="tensor_parallel_size=1"):
        EngineState({"kv": "chunkkv", "tensor_parallel_size": 2})
    args = {"kv": "keydiff", "tensor_parallel_size": 2}
    EngineState(args)
    assert "enable_prefix_caching" not in args
    for given, said in (({}, "enable_prefix_caching=False"), ({"enable_prefix_caching": False}, None)):
        state = EngineState({"kv": "task", **given})
        found = state.refusal(Setting.parse("kv:snapkv@0.3"))
        assert (said in (found or "")) if said else found is None
        assert state.refusal(Setting.parse("kv:keydiff@0.3")) is None
    config = Bag(
        parallel_config=Bag(),
        speculative_config=None,
        cache_config=Bag(enable_prefix_caching=True),
    )
    assert "kv:snapkv needs" in (seam.refusal(config, True, make("snapkv", 0.3)) or "")
    assert seam.refusal(config, True, make("keydiff", 0.3)) is None


def test_the_last_queries_of_a_prompt_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions are told from the batch alone; a prompt that is computed again begins anew."""

    def batch(*rows: tuple[int, int, int]) -> Any:
        """(first position, tokens, prompt) a row."""
        starts = torch.tensor([0, *(count for _, count, _ in rows)]).cumsum(0)
        told = seam.Requests(np.array([p for *_, p in rows]), [f"r{i}" for i in range(len(rows))])
        monkeypatch.setattr(seam, "current", told)
        return Bag(
            num_reqs=len(rows),
            query_start_loc_cpu=starts,
            seq_lens=torch.tensor([first + count for first, count, _ in rows]),
        )

    found = sparse.tails(batch((0, 10, 12), (4, 6, 30), (12, 1, 12)), 4)
    assert found == [lists.Tail("r0", 8, 10, 8)]
    assert sparse.tails(batch((10, 4, 12)), 4) == [lists.Tail("r0", 0, 2, 10)], (
        "tokens after the prompt are none"
    )
    layer, query = lists.Lists(), torch.arange(40.0).view(20, 2, 1)
    step = sparse.Step(0, 0, 13, 12, "r0")
    layer.see([lists.Tail("r0", 8, 10, 8)], query)
    layer.see([lists.Tail("r0", 0, 2, 10)], query)
    window = layer._window(step, 4, 1)
    assert (
        window.shape == (1, 2, 4, 1) and window[0, :, :, 0].T.tolist() == query[[8, 9, 0, 1], :, 0].tolist()
    )
    layer.see([lists.Tail("r0", 8, 10, 8)], query)
    layer.see([lists.Tail("r0", 0, 4, 8)], query)  # preempted between its chunks
    assert layer._window(step, 4, 1)[0, 0, :, 0].tolist() == query[:4, 0, 0].tolist()
    with pytest.raises(RuntimeError, match="enable_prefix_caching=False"):
        layer._window(step, 4, 1)
