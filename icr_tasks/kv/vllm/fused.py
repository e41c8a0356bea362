"""A layer's generated tokens by the Triton kernels, where they can take the method: no dense pass over them,
no copy of their sequence, nothing that waits for the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..base import Method
from . import paged
from .lists import Lists
from .sparse import Plan, count
from .sparse import paged as gathered

PAGE = 16  # tokens of the pages whose extremes are kept where requests bring settings of their own


def page_kept(method: Method | None, block: int) -> int | None:
    """Tokens of the pages whose extremes a layer keeps for this method (None: each request's own), or None.

    Blocks outlive a request (prefix cache), so that pages of one size are kept from the first token on.
    """
    page = min(PAGE, block) if method is None else paged.page_of(method) if method.name == "page" else None
    return page if page and block % page == 0 and not page & (page - 1) else None


@dataclass
class _Made:
    """What all layers share of a step: the rows on the device, where they stand in the batch, what each
    reads."""

    batch: paged.Batch
    at: Tensor
    shares: list[paged.Share]


class Fused:
    """The kernels over one layer's cache. `impl`: vLLM's implementation of the layer."""

    def __init__(self, impl: Any, method: Method | None) -> None:
        self._impl, self._method = impl, method
        self._cache: paged.Cache | None = None
        self._whole: Tensor | None = None
        self._lists = Lists()

    def wrote(self, kv_cache: Tensor, slots: Tensor) -> None:
        """The extremes of the pages that `slots` belong to, after keys were written there. kv_cache: (blocks,
        kv_heads, block, 2 * dim), as FlashAttention's."""
        if self._cache is None or self._cache.keys.data_ptr() != kv_cache.data_ptr():
            keys, values = kv_cache.transpose(1, 2).split(self._impl.head_size, dim=-1)
            self._cache = paged.Cache(keys, values, page_kept(self._method, keys.shape[1]))
            self._whole = kv_cache
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
        if plan.made is None:
            plan.made = _make(plan)
            _count(plan, self._impl, self._cache)
        made: _Made = plan.made
        heads, dim = self._impl.num_kv_heads, self._impl.head_size
        grouped = query.index_select(0, made.at).view(len(plan.steps), heads, -1, dim)
        out = paged.decode(
            self._cache, grouped, made.batch, self._impl.scale, self._kept(plan, made.batch.width)
        )
        output.index_copy_(0, made.at, out.view(len(plan.steps), *output.shape[1:]).to(output.dtype))

    def _kept(self, plan: Plan, width: int) -> Tensor | None:
        """An evictor's lists; None for a method that ranks at every step. Made where a request begins to answer."""
        if not plan.method.frees or not width:
            return None
        assert self._whole is not None
        whole, dim = self._whole, self._impl.head_size
        return self._lists.stacked(plan, width, lambda slots: gathered(whole, slots, dim), self._impl.scale)


def _make(plan: Plan) -> _Made:
    shares = [paged.share(plan.method, step.prompt, step.length) for step in plan.steps]
    host = torch.tensor([[step.at, step.row] for step in plan.steps], device="cpu")
    if plan.table.device.type != "cpu":
        host = host.pin_memory()
    at, rows = host.to(plan.table.device, non_blocking=True).t().contiguous()
    return _Made(paged.Batch.of(shares, plan.table.index_select(0, rows)), at, shares)


def _count(plan: Plan, impl: Any, cache: paged.Cache) -> None:
    """All layers at once, from lengths alone, when the first of them runs. Units as the methods themselves
    count."""
    row = impl.num_kv_heads * impl.head_size * cache.keys.element_size()
    for step, share in zip(plan.steps, plan.made.shares, strict=True):
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
