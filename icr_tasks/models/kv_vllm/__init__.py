"""Compressed decode inside vLLM, as an out-of-tree attention backend; off unless `ICR_KV` names a method.

    ICR_KV=topk@0.05 lm_eval --tasks icr_helmet_rag_8k --model vllm --model_args pretrained=...,enforce_eager=True
    # CUDA: also attention_backend=ICR_KV

The same methods as in `models/kv`, on vLLM's paged cache: prefill is vLLM's own dense kernel, and each generated token
attends to what the method picks. Nothing is evicted, so prefix caching, chunked prefill and preemption stay valid.
It gathers blocks in PyTorch: what it measures is answers and bytes read, not speed.
"""

from __future__ import annotations

from ...errors import IcrError

METHODS = ("topk", "page", "steady")
VARIABLE = "ICR_KV"


def parse(text: str) -> str:
    """The setting string of `ICR_KV`, canonical. Raises IcrError for a method this backend does not have."""
    from ...context.setting import Setting

    setting = Setting.parse(text if text.startswith("kv:") else f"kv:{text}")
    if setting.method not in METHODS:
        raise IcrError(
            f"{VARIABLE}={text}: the vLLM backend has {', '.join(METHODS)}; {setting.method} keeps an index or drops "
            "tokens per sequence, which vLLM's shared blocks do not allow: use --model icr-hf"
        )
    if setting.params.get("split") == "query-agnostic":
        raise IcrError(f"{VARIABLE}={text}: compression before the question needs --model icr-hf")
    return str(setting)
