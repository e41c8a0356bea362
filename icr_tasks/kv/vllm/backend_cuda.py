"""The backend on CUDA, on top of FlashAttention's paged cache. Eager only: the plan of a step is made on the
host."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from .sparse import Planning, attend, paged, refuse


class Builder(Planning, FlashAttentionMetadataBuilder):
    """Adds the plan of the batch's generated tokens."""

    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.NEVER

    @classmethod
    def get_cudagraph_support(cls, *args: Any, **kwargs: Any) -> AttentionCGSupport:
        """No CUDA graphs."""
        return AttentionCGSupport.NEVER


class Impl(FlashAttentionImpl):
    """vLLM's dense kernel, then the method for generated tokens, gathered from the paged cache."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse(self, self.kv_cache_dtype)

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
        super().forward(layer, query, key, value, kv_cache, attn_metadata, output, *args, **kwargs)
        if attn_metadata is not None and attn_metadata.icr_plan:
            attend(self, attn_metadata.icr_plan, query, output, partial(paged, kv_cache, dim=self.head_size))
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
