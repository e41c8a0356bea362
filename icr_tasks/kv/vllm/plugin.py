"""Entry point `vllm.general_plugins`: called by vLLM in every one of its processes; does nothing unless
ICR_KV is set."""

from __future__ import annotations

import os

from ..choose import TASK, VARIABLE, parse
from . import counters, seam

_done = False


def register() -> None:
    """Register the backends and learn the rows of a batch from the model runners. Idempotent; raises IcrError
    for a bad ICR_KV and for a vLLM whose names have changed."""
    global _done
    if _done or not os.environ.get(VARIABLE):
        return
    if os.environ[VARIABLE] != TASK:
        parse(os.environ[VARIABLE])
    counters.path()
    from vllm.triton_utils import HAS_TRITON
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    seam.install(v2=bool(HAS_TRITON))
    register_backend(seam.BACKEND, f"{__package__}.backend_cuda.Backend")
    # the CPU platform honours no other name
    register_backend(AttentionBackendEnum.CPU_ATTN, f"{__package__}.backend_cpu.Backend")
    _done = True
