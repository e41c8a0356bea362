"""Compressed decode over a paged cache by the kernels of `kernels.py`: what each row reads is decided once a
step on the host (it follows from lengths alone), which pages are best is decided on the device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import IcrError
from ..base import Method
from . import kernels, lists

METHODS = ("page", "topk", "steady", *lists.METHODS)
TILE = 64  # tokens an iteration reads
SPLIT = 128  # tokens of a list that one program reads, at least
MOST_SPLITS = 64
PROGRAMS = 512  # of one launch, that keep any GPU of today busy; more of them only cost their sums
ENTRIES = 16384  # entries that one program can rank
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Share:
    """What one row reads, in pages of its sequence: [0, head), `chosen` of [head, tail), and all from `tail`
    on.

    `length`: tokens of the sequence, this one included. `sparse`: whether something is left out.
    """

    length: int
    head: int
    chosen: int
    tail: int
    page: int

    @property
    def sparse(self) -> bool:
        """Whether a page of the sequence is left out."""
        return self.chosen < self.tail - self.head

    @property
    def tokens(self) -> int:
        """Tokens read; the pages of the zone are whole."""
        return (self.head + self.chosen - self.tail) * self.page + self.length


def page_of(method: Method) -> int:
    """Tokens that the method picks together."""
    return int(getattr(method, "page", 1))


def share(method: Method, prompt: int, length: int) -> Share:
    """What a token at the end of `length` tokens reads, of which the first `prompt` were the prompt."""
    page = page_of(method)
    if not method.applies(prompt):
        return Share(length, 0, 0, 0, page)
    if method.frees:
        return Share(length, 0, method.n_kept(prompt), prompt, page)
    zone = method.zone(prompt)
    head, tail = zone.start // page, method.end(zone, length) // page
    found = tail - head if method.whole and zone.retrieve else min(zone.retrieve, tail - head)
    return Share(length, head, found, tail, page)


@dataclass(frozen=True)
class Batch:
    """A step's rows on the device, (rows,) int32 each; `tables` (rows, blocks) int32.

    `width`, `longest` and `most` bound, on the host, the pages chosen, the tokens of a sequence and those
    read of it: they fix the grids.
    """

    lengths: Tensor
    head: Tensor
    chosen: Tensor
    tail: Tensor
    tables: Tensor
    width: int
    longest: int
    most: int
    page: int

    @classmethod
    def of(cls, shares: Sequence[Share], tables: Tensor) -> Batch:
        """One copy to the device, which nothing waits for. `tables`: the rows' block tables, on the
        device."""
        rows = [[s.length, s.head, s.chosen, s.tail] for s in shares]
        host = torch.tensor(rows, dtype=torch.int32, device="cpu")
        if tables.device.type != "cpu":
            host = host.pin_memory()
        lengths, head, chosen, tail = host.to(tables.device, non_blocking=True).t().contiguous()
        width, longest = max(s.chosen for s in shares), max(s.length for s in shares)
        most = max(s.tokens for s in shares)
        return cls(lengths, head, chosen, tail, tables.int(), width, longest, most, shares[0].page)


class Cache:
    """Views of one layer's cache, and the extremes of its pages.

    keys, values: (blocks, tokens a block, kv_heads, dim), any strides but dim's, which is 1. Raises IcrError
    for a page that does not divide a block and for a cache type that is not 16 or 32 bits.
    """

    def __init__(self, keys: Tensor, values: Tensor, page: int | None = None) -> None:
        if keys.dtype not in TYPES:
            raise IcrError(
                f"the sparse kernels read 16- or 32-bit caches, not {keys.dtype}; set kv_cache_dtype=auto"
            )
        self.keys, self.values = keys, values
        self.blocks, self.block, self.heads, self.dim = keys.shape
        self.width = 1 << max(4, (self.dim - 1).bit_length())
        self.page = page
        if page is None:
            return
        if self.block % page or page & (page - 1):
            raise IcrError(
                f"page={page} does not divide this cache's blocks of {self.block} tokens into powers of "
                "two; give "
                f"page={min(16, self.block)}"
            )
        shape = (self.blocks * (self.block // page), self.heads, self.dim)
        self.low, self.high = keys.new_zeros(shape), keys.new_zeros(shape)

    def wrote(self, slots: Tensor) -> None:
        """Bring the extremes up to date after tokens were written to `slots` (-1: padding), in order."""
        if self.page is None or not len(slots):
            return
        kernels.extremes_kernel[(len(slots), self.heads)](
            self.keys,
            slots,
            self.low,
            self.high,
            len(slots),
            *self.keys.stride()[:3],
            HEADS=self.heads,
            DIM=self.dim,
            WIDTH=self.width,
            BLOCK=self.block,
            PAGE=self.page,
        )

    def bounds(self, query: Tensor, batch: Batch, scale: float) -> Tensor:
        """The most each page's keys could score, (rows, kv_heads, group, pages) float32; -inf outside the
        zone."""
        assert self.page is not None
        rows, _, group, _ = query.shape
        pages = -(-batch.longest // self.page)
        out = query.new_empty(rows, self.heads, group, pages, dtype=torch.float32)
        kernels.bound_kernel[(rows, self.heads, -(-pages // TILE))](
            query,
            self.low,
            self.high,
            batch.tables,
            batch.head,
            batch.tail,
            out,
            scale,
            batch.tables.stride(0),
            pages,
            **self._sizes(group),
            PAGE=self.page,
            PAGES=TILE,
            UPCAST=INTERPRETED,
        )
        return out

    def scores(self, query: Tensor, batch: Batch, scale: float) -> Tensor:
        """All keys' scores, (rows, kv_heads, group, tokens) float32; -inf behind a row's end."""
        rows, _, group, _ = query.shape
        out = query.new_empty(rows, self.heads, group, batch.longest, dtype=torch.float32)
        kernels.score_kernel[(rows, self.heads, -(-batch.longest // TILE))](
            query,
            self.keys,
            batch.tables,
            batch.lengths,
            out,
            scale,
            *self.keys.stride()[:3],
            batch.tables.stride(0),
            batch.longest,
            **self._sizes(group),
            TOKENS=TILE,
            UPCAST=INTERPRETED,
        )
        return out

    def attend(self, query: Tensor, batch: Batch, chosen: Tensor | None, scale: float) -> Tensor:
        """Attention of each row over its pages. query and result: (rows, kv_heads, group, dim).

        `chosen`: (rows, kv_heads, width) int32 pages of the sequence, of which a row takes its first
        `batch.chosen`.
        """
        rows, _, group, _ = query.shape
        splits = min(-(-batch.most // SPLIT), MOST_SPLITS, -(-PROGRAMS // (rows * self.heads)))
        splits = max(1, splits)
        parts = (rows, self.heads, group, splits)
        part_out = query.new_empty(*parts, self.dim, dtype=torch.float32)
        part_top, part_sum = (query.new_empty(parts, dtype=torch.float32) for _ in range(2))
        if chosen is None:
            chosen = batch.lengths.new_zeros(rows, self.heads, 1)
        kernels.decode_kernel[(rows, self.heads, splits)](
            query,
            self.keys,
            self.values,
            batch.tables,
            batch.lengths,
            batch.head,
            chosen,
            batch.chosen,
            batch.tail,
            part_out,
            part_top,
            part_sum,
            scale,
            *self.keys.stride()[:3],
            *self.values.stride()[:3],
            batch.tables.stride(0),
            chosen.stride(1),
            splits,
            **self._sizes(group),
            PAGE=batch.page,
            TOKENS=TILE,
            UPCAST=INTERPRETED,
        )
        out = torch.empty_like(query)
        kernels.merge_kernel[(rows * self.heads * group,)](
            part_out,
            part_top,
            part_sum,
            out,
            splits,
            DIM=self.dim,
            WIDTH=self.width,
            SPLITS=1 << (splits - 1).bit_length(),
        )
        return out

    def _sizes(self, group: int) -> dict[str, Any]:
        return {
            "HEADS": self.heads,
            "GROUP": group,
            "ROWS": max(16, 1 << (group - 1).bit_length()),
            "DIM": self.dim,
            "WIDTH": self.width,
            "BLOCK": self.block,
        }


def best(logits: Tensor, batch: Batch) -> Tensor:
    """The entries of each row's zone with the largest softmax summed over the query group: its first `batch.chosen` of
    (rows, kv_heads, width) int32. logits: (rows, kv_heads, group, entries)."""
    rows, heads, group, entries = logits.shape
    if entries <= ENTRIES:
        out = batch.lengths.new_empty(rows, heads, batch.width)
        size = max(16, 1 << (entries - 1).bit_length())
        kernels.choose_kernel[(rows, heads)](
            logits,
            batch.head,
            batch.tail,
            batch.chosen,
            out,
            entries,
            batch.width,
            HEADS=heads,
            GROUP=group,
            ENTRIES=size,
            num_warps=4 if size <= 1024 else 8 if size <= 4096 else 16,
        )
        return out
    ranked = torch.softmax(logits, -1).nan_to_num_(0.0).sum(2)  # a row without a zone has nothing but -inf
    entry = torch.arange(ranked.shape[-1], device=ranked.device)
    outside = (entry < batch.head[:, None]) | (entry >= batch.tail[:, None])
    ranked.masked_fill_(outside[:, None], -1.0)
    return ranked.topk(batch.width, dim=-1, sorted=True).indices.int()


def decode(cache: Cache, query: Tensor, batch: Batch, scale: float, kept: Tensor | None = None) -> Tensor:
    """One generated token a row by the method that made `batch`. query: (rows, kv_heads, group, dim). `kept`: an
    evictor's lists, (rows, kv_heads, width); without them the pages are ranked here."""
    if not batch.width or kept is not None:
        return cache.attend(query, batch, kept if batch.width else None, scale)
    logits = cache.scores(query, batch, scale) if batch.page == 1 else cache.bounds(query, batch, scale)
    return cache.attend(query, batch, best(logits, batch), scale)
