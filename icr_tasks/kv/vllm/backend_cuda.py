"""The backend on CUDA, on top of FlashAttention's paged cache. Eager only: what a step reads is planned on
the host."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from .fused import Fused
from .sparse import Planning, asked, attend, paged, refuse


class Builder(Planning, FlashAttentionMetadataBuilder):
    """Adds the plan of the batch's generated tokens."""

    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.NEVER

    @classmethod
    def get_cudagraph_support(cls, *args: Any, **kwargs: Any) -> AttentionCGSupport:
        """No CUDA graphs."""
        return AttentionCGSupport.NEVER


class Impl(FlashAttentionImpl):
    """Generated tokens by the Triton kernels; vLLM's dense kernel for the rest of a batch. What the kernels
    cannot take (pages of another size than a block allows) is gathered from the cache after a dense pass."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse(self, self.kv_cache_dtype)
        self._fused = Fused(self, asked())

    def do_kv_cache_update(self, layer: Any, key: Any, value: Any, kv_cache: Any, slot_mapping: Any) -> None:
        """As vLLM's; the extremes of the pages follow."""
        super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)
        self._fused.wrote(kv_cache, slot_mapping)

    def forward(
        self,
        layer: Any,
        query: Any,
        key: Any,
        value: Any,
        kv_cache: Any,
        attn_metadata: Any,
        output: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As vLLM's; rows of generated tokens come from the method."""
        plan: Any = attn_metadata.icr_plan if attn_metadata is not None else None
        fused = plan is not None and bool(plan.steps) and self._fused.takes(plan)
        if not fused or len(plan.steps) < plan.tokens:
            super().forward(layer, query, key, value, kv_cache, attn_metadata, output, *args, **kwargs)
        if fused:
            self._fused.attend(plan, query, output)
        elif plan is not None:
            attend(self, plan, query, output, partial(paged, kv_cache, dim=self.head_size))
        return output


class Backend(FlashAttentionBackend):
    """Chosen by name: attention_backend=ICR_KV."""

    @staticmethod
    def get_name() -> str:
        """The name it is registered by."""
        return "ICR_KV"

    @staticmethod
    def get_impl_cls() -> type[Impl]:
        """The sparse implementation."""
        return Impl

    @staticmethod
    def get_builder_cls() -> type[Builder]:
        """The builder that plans decode steps."""
        return Builder
