"""Entry point `vllm.general_plugins`: called by vLLM in every one of its processes; does nothing unless
ICR_KV is set."""

from __future__ import annotations

import functools
import os
from typing import Any

from ..choose import TASK, VARIABLE, parse
from . import counters, sparse

_done = False


def register() -> None:
    """Register the backends and learn prompt lengths from the model runner. Idempotent; raises for a bad
    ICR_KV."""
    global _done
    if _done or not os.environ.get(VARIABLE):
        return
    if os.environ[VARIABLE] != TASK:
        parse(os.environ[VARIABLE])
    counters.path()
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    register_backend("ICR_KV", f"{__package__}.backend_cuda.Backend")
    # the CPU platform honours no other name
    register_backend(AttentionBackendEnum.CPU_ATTN, f"{__package__}.backend_cpu.Backend")
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    _tell_prompt_lengths(GPUModelRunner)
    _done = True


def _tell_prompt_lengths(runner: type[Any]) -> None:
    build = runner._build_attention_metadata

    @functools.wraps(build)
    def with_lengths(self: Any, *args: Any, **kwargs: Any) -> Any:
        sparse.prompt_tokens = self.input_batch.num_prompt_tokens_cpu_tensor
        sparse.request_names = self.input_batch.req_ids
        return build(self, *args, **kwargs)

    runner._build_attention_metadata = with_lengths
