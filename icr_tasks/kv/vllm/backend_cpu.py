"""The backend on CPU. vLLM packs its CPU key cache per instruction set, so a plain copy of keys and values is
kept."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

from . import lists
from .sparse import Planning, attend, refuse


class Builder(Planning, CPUAttentionMetadataBuilder):
    """Adds the plan of the batch's generated tokens."""


class Impl(CPUAttentionBackendImpl):
    """vLLM's dense kernel, then the method for generated tokens. Needs as much memory again as the cache."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse(self, self.kv_cache_dtype)
        self._plain: tuple[torch.Tensor, torch.Tensor] | None = None

    def do_kv_cache_update(self, layer: Any, key: Any, value: Any, kv_cache: Any, slot_mapping: Any) -> None:
        """Both caches."""
        super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)
        if self._plain is None:
            blocks, heads, size, _ = kv_cache.shape
            shape = (blocks * size, heads, self.head_size)
            self._plain = torch.zeros(shape, dtype=key.dtype), torch.zeros(shape, dtype=key.dtype)
        n = len(slot_mapping)
        used = slot_mapping >= 0
        for plain, new in zip(self._plain, (key, value), strict=True):
            plain[slot_mapping[used]] = new[:n][used]

    def forward(
        self,
        layer: Any,
        query: Any,
        key: Any,
        value: Any,
        kv_cache: Any,
        attn_metadata: Any,
        output: Any,
        output_scale: Any = None,
        output_block_scale: Any = None,
    ) -> Any:
        """As vLLM's; rows of generated tokens come from the method."""
        super().forward(
            layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale
        )
        plan = attn_metadata.icr_plan if attn_metadata is not None else None
        if plan and self._plain is not None:
            lists.of_layer(self).see(plan.tails, query)
            attend(self, plan, query, output, self._gather)
        return output

    def _gather(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._plain is not None
        keys, values = (plain[slots].transpose(0, 1) for plain in self._plain)
        return keys, values


class Backend(CPUAttentionBackend):
    """Takes CPU_ATTN's place: vLLM's CPU platform ignores other names."""

    @staticmethod
    def get_impl_cls() -> type[Impl]:
        """The sparse implementation."""
        return Impl

    @staticmethod
    def get_builder_cls() -> type[Builder]:
        """The builder that plans decode steps."""
        return Builder
