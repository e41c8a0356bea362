"""Cache types that vLLM brings itself (`kv_cache_dtype`, setting `kv:TYPE`): one list for settings, engines
and sweeps."""

from __future__ import annotations

_BOTH, _GPU = ("cpu", "cuda"), ("cuda",)
# type -> platforms where its kernel gives right answers ("cuda" stands for every GPU); which backend reads it
# (vllm 0.32)
NATIVE: dict[str, tuple[tuple[str, ...], str]] = {
    "auto": (_BOTH, "the model's own type"),
    "fp8": (_BOTH, "every dense backend"),
    "fp8_e4m3": (_BOTH, "every dense backend"),
    "fp8_e5m2": (_BOTH, "CPU_ATTN, FlashInfer, Triton, ROCm"),
    "float16": (_GPU, "FlashAttention, FlashInfer, Triton, Flex"),
    "bfloat16": (_GPU, "FlashAttention, FlashInfer, Triton, Flex"),
    "nvfp4": (_GPU, "FlashInfer on Blackwell"),
    "nvfp4_4over6": (_GPU, "FlashInfer on Blackwell"),
    "int4_per_token_head": (_GPU, "Triton"),
    "int8_per_token_head": (_GPU, "Triton"),
    "fp8_per_token_head": (_GPU, "Triton"),
    "turboquant_k8v4": (_GPU, "TurboQuant"),
    "turboquant_4bit_nc": (_GPU, "TurboQuant"),
    "turboquant_k3v4_nc": (_GPU, "TurboQuant"),
    "turboquant_3bit_nc": (_GPU, "TurboQuant"),
}
