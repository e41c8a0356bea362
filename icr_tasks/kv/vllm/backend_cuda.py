"""The backend on CUDA, on top of FlashAttention's paged cache. What a step reads is planned on the host; steps of one
generated token a request run as CUDA graphs where an engine of one method asks for them."""

from __future__ import annotations

from functools import partial
from typing import Any

from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from ...errors import IcrError
from . import graphs, lists, seam
from .fused import Fused, Made, tally
from .sparse import Planning, asked, asked_of, attend, paged, refuse


class Builder(Planning, FlashAttentionMetadataBuilder):
    """Adds the plan of the batch's generated tokens."""

    _static: graphs.Static | None = None

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> AttentionCGSupport:
        """Graphs of one token a request where they were asked for (`EngineState`)."""
        held = graphs.holds(asked_of(vllm_config), kv_cache_spec.block_size)
        if held and graphs.wanted(vllm_config) and vllm_config.use_v2_model_runner:
            return AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE
        return AttentionCGSupport.NEVER

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> Any:
        """As the builder's own. Where a graph of so many rows was recorded, its buffers take this batch."""
        found: Any = super().build(common_prefix_len, common_attn_metadata, fast_build)
        static, plan, common = self._static, found.icr_plan, common_attn_metadata
        if static is None or plan is None or common.num_reqs not in static.recorded:
            return found
        shares = graphs.rows(plan, common)
        if shares is None:
            return found
        plan.made = Made(static.filled(shares, common.block_table_tensor), None)
        spec: Any = self.kv_cache_spec
        own = [shares[step.row] for step in plan.steps]
        tally(plan, own, spec.num_kv_heads * spec.head_size * spec.dtype.itemsize)
        return found

    def build_for_cudagraph_capture(self, common_attn_metadata: Any) -> Any:
        """What a graph is recorded with."""
        seam.tell_nobody()  # vLLM makes such batches without asking its runner for their rows
        found: Any = super().build_for_cudagraph_capture(common_attn_metadata)
        common = common_attn_metadata
        if found.icr_plan is not None:
            if self._static is None:
                config = self.vllm_config
                self._static = graphs.Static(
                    found.icr_plan.method,
                    config.scheduler_config.max_num_seqs,
                    config.model_config.max_model_len,
                    common.block_table_tensor.device,
                )
            batch = self._static.dummy(common.num_reqs, common.block_table_tensor)
            found.icr_plan.made = Made(batch, None, self._static.recorded.add)
        return found


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
        if plan is not None and plan.tails:
            lists.of_layer(self).see(plan.tails, query)
        whole = plan is not None and plan.made is not None and plan.made.at is None  # every row is the plan's
        fused = plan is not None and bool(plan.steps or whole) and self._fused.takes(plan)
        if whole and not fused:
            raise IcrError(
                "this layer's cache has other blocks than its CUDA graphs need; set enforce_eager=True"
            )
        if not fused or not (whole or len(plan.steps) == plan.tokens):
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
