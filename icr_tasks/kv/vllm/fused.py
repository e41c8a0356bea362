"""A layer's generated tokens by the Triton kernels, where they can take the method: no dense pass over them,
no copy of their sequence, nothing that waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..base import Method
from . import graphs, paged
from .lists import of_layer
from .sparse import Plan, count
from .sparse import paged as gathered


@dataclass
class Made:
    """What all layers share of a step: the rows on the device, and where they stand in the batch (None: row i is token
    i). `recorded`: takes the number of rows when a CUDA graph of such a step is recorded."""

    batch: paged.Batch
    at: Tensor | None
    recorded: Callable[[int], None] | None = None


class Fused:
    """The kernels over one layer's cache. `impl`: vLLM's implementation of the layer."""

    def __init__(self, impl: Any, method: Method | None) -> None:
        self._impl, self._method = impl, method
        self._cache: paged.Cache | None = None
        self._whole: Tensor | None = None
        self._lists = of_layer(impl)

    def wrote(self, kv_cache: Tensor, slots: Tensor) -> None:
        """The extremes of the pages that `slots` belong to, after keys were written there. kv_cache: (blocks,
        kv_heads, block, 2 * dim), as FlashAttention's."""
        # an engine that measures itself makes a small cache first, and the real one may begin at the same address
        if (
            self._whole is None
            or self._whole.shape != kv_cache.shape
            or not _same_place(self._whole, kv_cache)
        ):
            keys, values = kv_cache.transpose(1, 2).split(self._impl.head_size, dim=-1)
            self._cache = paged.Cache(keys, values, graphs.page_kept(self._method, keys.shape[1]))
            self._whole = kv_cache
        assert self._cache is not None
        self._cache.wrote(slots)

    def takes(self, plan: Plan) -> bool:
        """Whether the kernels can run this plan: pages must be those whose extremes are kept."""
        if self._cache is None or plan.method.name not in paged.METHODS or plan.block != self._cache.block:
            return False
        return plan.method.name != "page" or paged.page_of(plan.method) == self._cache.page

    def attend(self, plan: Plan, query: Tensor, output: Tensor) -> None:
        """Write the output rows of the plan's steps. query (tokens, heads, dim); output (tokens, heads * dim)
        or (tokens, heads, dim)."""
        assert self._cache is not None
        heads, dim = self._impl.num_kv_heads, self._impl.head_size
        if plan.made is None:
            shares = [paged.share(plan.method, step.prompt, step.length) for step in plan.steps]
            plan.made = _make(plan, shares)
            tally(plan, shares, heads * dim * self._cache.keys.element_size())
        made: Made = plan.made
        batch, rows = made.batch, len(made.batch.lengths)
        if made.recorded is not None and query.is_cuda and torch.cuda.is_current_stream_capturing():
            made.recorded(rows)
        asked = query[:rows] if made.at is None else query.index_select(0, made.at)
        grouped = asked.reshape(rows, heads, -1, dim)
        out = paged.decode(self._cache, grouped, batch, self._impl.scale, self._kept(plan, batch.width))
        out = out.view(rows, *output.shape[1:]).to(output.dtype)
        if made.at is None:
            output[:rows].copy_(out)
        else:
            output.index_copy_(0, made.at, out)

    def _kept(self, plan: Plan, width: int) -> Tensor | None:
        """An evictor's lists; None for a method that ranks at every step. Made where a request begins to answer."""
        if not plan.method.frees or not width:
            return None
        assert self._whole is not None
        whole, dim = self._whole, self._impl.head_size
        return self._lists.stacked(plan, width, lambda slots: gathered(whole, slots, dim), self._impl.scale)


def _same_place(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.stride() == other.stride()


def _make(plan: Plan, shares: Sequence[paged.Share]) -> Made:
    host = torch.tensor([[step.at, step.row] for step in plan.steps], device="cpu")
    if plan.table.device.type != "cpu":
        host = host.pin_memory()
    at, rows = host.to(plan.table.device, non_blocking=True).t().contiguous()
    return Made(paged.Batch.of(shares, plan.table.index_select(0, rows)), at)


def tally(plan: Plan, shares: Sequence[paged.Share], row: int) -> None:
    """Count the plan's steps and what each of them (in order) reads, of all layers at once and from lengths alone. `row`:
    bytes of a token's keys in one layer. Units as the methods themselves count."""
    for step, share in zip(plan.steps, shares, strict=True):
        n, zone = share.length, share.tail - share.head
        index, ranked = 0, 0
        if zone and plan.method.name == "page":
            index = ranked = 2 * row * zone
        elif zone and plan.method.name == "topk":
            ranked = row * (zone - share.chosen)
        counts = {
            "bytes_read": 2 * row * share.tokens + ranked,
            "bytes_full": 2 * row * n,
            "tokens_read": share.tokens,
            "tokens_full": n,
            "index_bytes": index,
        }
        count(plan, step, share.sparse, **{name: value * plan.layers for name, value in counts.items()})
