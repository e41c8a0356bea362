"""A reader's step on a CPU in float32: as few calls as there can be, each of which reads what it must once.

At long contexts such a step is short (milliseconds), and what surrounds the reading (copies that join copies, passes over
scores, a call for every head) takes longer than the reading. The answers are those of `base.merge` over the same tokens,
up to the order of sums.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from ..lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Picked, Zone


_BLOCK = 256  # rows whose products with a few queries are made at once; they stay in a core's cache


class Blocks:
    """Rows (kv_heads, n, dim) that every query is multiplied with, laid out so that this reads them near the speed of
    memory: in blocks of rows, each by dimension. What is left after the last whole block stays as it is."""

    def __init__(self, x: Tensor) -> None:
        whole = x.shape[1] // _BLOCK * _BLOCK
        self.blocks = x[:, :whole].unflatten(1, (-1, _BLOCK)).transpose(2, 3).contiguous()
        self.rest = x[:, whole:].contiguous()
        self.shape, self.bytes = x.shape, x.numel() * x.element_size()

    def products(self, query: Tensor) -> Tensor:
        """Every row of query (kv_heads, group, dim) with every row: (kv_heads, group, n)."""
        heads, n, _ = self.shape
        whole = n - self.rest.shape[1]
        out = query.new_empty(heads, query.shape[1], n)
        if whole:
            made = query.unsqueeze(1) @ self.blocks
            out[..., :whole].unflatten(2, (-1, _BLOCK)).copy_(made.transpose(1, 2))
        out[..., whole:] = query @ self.rest.transpose(1, 2)
        return out

    def plain(self) -> Tensor:
        """The rows as they were given."""
        return torch.cat([self.blocks.transpose(2, 3).flatten(1, 2), self.rest], 1)


def take(x: Tensor, positions: Tensor, run: int = 1, start: int = 0) -> Tensor:
    """Runs of `run` rows of x (kv_heads, n, dim), counted from row `start`, at positions (kv_heads, m): (kv_heads, m * run,
    dim). One call for all heads: x is seen as pieces that lie `unit` numbers apart, whatever room a cache leaves between
    its heads. (gather copies number by number, 10 times slower.)"""
    heads, n, dim = x.shape
    apart, step, one = x.stride()
    long = run * dim
    unit = gcd(apart, step * run)
    if one != 1 or unit < long or (run > 1 and step != dim):
        inside = torch.arange(run)
        at = (positions.unsqueeze(-1) * run + inside).flatten(1) + start
        return torch.stack([x[head].index_select(0, at[head]) for head in range(heads)])
    pieces = (heads - 1) * (apart // unit) + ((n - start) // run - 1) * (step * run // unit) + 1
    seen = x.as_strided((pieces, long), (unit, 1), x.storage_offset() + start * step)
    first = torch.arange(heads).unsqueeze(1) * (apart // unit)
    flat = torch.add(first, positions, alpha=step * run // unit).view(-1)
    return seen.index_select(0, flat).view(heads, -1, dim)


def attention(
    query: Tensor, keys: Tensor, values: Tensor, zone: Zone, picked: Picked | None, scale: float
) -> Tensor:
    """Softmax over what stands outside the zone, what was picked of it and the estimate: (kv_heads, group, dim). An
    estimated cluster is a token with its centre's score plus the logarithm of its size, and its mean value."""
    query = query * scale
    near = [torch.cat([x[:, : zone.start], x[:, zone.end :]], 1) for x in (keys, values)]
    scores = query @ near[0].transpose(1, 2)
    if picked is None:
        return torch.softmax(scores, -1) @ near[1]
    n, read = scores.shape[2], take(keys, picked.positions, picked.run, zone.start)
    some = query @ read.transpose(1, 2)
    if picked.valid is not None:
        some.masked_fill_(~picked.valid.unsqueeze(1), -torch.inf)
    parts, m = [scores, some], n + some.shape[2]
    if picked.estimate is not None:
        rough, sums, sizes = picked.estimate
        parts.append(rough + sizes.log().unsqueeze(1))
    weights = torch.softmax(torch.cat(parts, 2), -1)
    out = weights[..., :n] @ near[1]
    out.baddbmm_(weights[..., n:m], take(values, picked.positions, picked.run, zone.start))
    if picked.estimate is not None:
        share = weights[..., m:] / sizes.clamp(min=1).unsqueeze(1)
        out.baddbmm_(share, sums)
    return out
