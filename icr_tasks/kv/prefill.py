"""Sparse prefill by XAttention (arXiv 2503.16428): each query block attends to the key blocks that hold most of its attention.

What a block holds is estimated from sums along antidiagonals of STRIDE x STRIDE tiles; of a query block's key blocks the
fewest that hold THRESHOLD of the estimate are computed, the first and its own always. The exact attention that is kept is
measured on the last query of every block.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import IcrError
from ..lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

BLOCK, STRIDE, THRESHOLD = 128, 16, 0.9


def tiles(query: Tensor, keys: Tensor, past: int, scale: float, threshold: float = THRESHOLD) -> Tensor:
    """Which key blocks each query block attends to, (heads, query blocks, key blocks) bool.

    query (heads, q, dim) stands after `past` tokens, a multiple of BLOCK; keys (kv_heads, past + q, dim).
    """
    heads, q, dim = query.shape
    kv_heads, n, _ = keys.shape
    rows, columns = -(-q // BLOCK), -(-n // BLOCK)
    pad = torch.nn.functional.pad
    across = pad(query, (0, 0, 0, rows * BLOCK - q)).view(heads, -1, STRIDE, dim).flip(2).flatten(2)
    down = pad(keys, (0, 0, 0, columns * BLOCK - n)).view(kv_heads, -1, STRIDE, dim).flatten(2)
    scores = across.view(kv_heads, -1, across.shape[1], across.shape[2]) @ down.unsqueeze(1).transpose(2, 3)
    scores = scores.flatten(0, 1).float() * (scale / STRIDE)  # (heads, strides of queries, strides of keys)
    place = torch.arange(scores.shape[1], device=query.device)
    later = torch.arange(scores.shape[2], device=query.device)[None] > place[:, None] + past // STRIDE
    weights = torch.softmax(scores.masked_fill(later, -torch.inf), -1)
    weights = weights.masked_fill((place * STRIDE >= q)[:, None], 0)
    each = BLOCK // STRIDE
    held = weights.view(heads, rows, each, columns, each).sum((2, 4))
    own = torch.arange(rows, device=query.device) + past // BLOCK
    block = torch.arange(columns, device=query.device)
    always = (block[None] == own[:, None]) | (block[None] == 0)
    order = (held + always * held.sum(-1, keepdim=True).clamp(min=1) * 2).argsort(-1, descending=True)
    sorted_held = held.gather(-1, order)
    before = sorted_held.cumsum(-1) - sorted_held
    enough = before < threshold * held.sum(-1, keepdim=True)
    kept = torch.zeros_like(enough).scatter(-1, order, enough)
    return (kept | always) & (block[None] <= own[:, None])


def attend(query: Tensor, keys: Tensor, values: Tensor, kept: Tensor, past: int, scale: float) -> Tensor:
    """Attention over the tiles `kept` alone, (heads, q, dim): every head reads its own blocks and no other's (the union over
    heads is nearly all of them). A query block's own key block is its last one, the only one that holds later keys."""
    group, n, out = query.shape[0] // keys.shape[0], keys.shape[1], torch.empty_like(query)
    inside = torch.arange(BLOCK, device=query.device)
    for i, start in enumerate(range(0, query.shape[1], BLOCK)):
        rows = query[:, start : start + BLOCK]
        size = rows.shape[1]
        if i == 0 or size < BLOCK:  # what to add to the scores of the last keys of any list
            hidden = query.new_zeros(size, n)
            hidden[:, n - size :].masked_fill_(inside[:size] > inside[:size, None], -torch.inf)
        for head in range(query.shape[0]):
            used = kept[head, i].nonzero()
            at = (used * BLOCK + inside).flatten()[: (len(used) - 1) * BLOCK + size]
            out[head, start : start + size] = torch.nn.functional.scaled_dot_product_attention(
                rows[None, head, None],
                keys[head // group].index_select(0, at)[None, None],
                values[head // group].index_select(0, at)[None, None],
                attn_mask=hidden[:, n - len(at) :],
                scale=scale,
            )[0, 0]
    return out


def mass(query: Tensor, keys: Tensor, kept: Tensor, past: int, scale: float) -> float:
    """Exact attention that the last query of each block gives to what is kept, mean over heads and blocks."""
    group, n, q = query.shape[0] // keys.shape[0], keys.shape[1], query.shape[1]
    last = torch.tensor([min(s + BLOCK, q) - 1 for s in range(0, q, BLOCK)], device=query.device)
    scores = (query[:, last].float() @ keys.repeat_interleave(group, 0).float().transpose(1, 2)) * scale
    later = torch.arange(n, device=query.device)[None] > past + last[:, None]
    weights = torch.softmax(scores.masked_fill(later, -torch.inf), -1)
    return float((weights * kept.repeat_interleave(BLOCK, 2)[:, :, :n]).sum(-1).mean())


@dataclass
class SparsePrefill:
    """Attention of one sequence's prefill, and what it left out, over all full-attention layers."""

    threshold: float = THRESHOLD
    computed: int = 0  # tiles, of `all`
    all: int = 0
    masses: list[float] = field(default_factory=list)
    untimed: float = 0.0  # seconds spent on measuring

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, scale: float, sinks: Tensor | None
    ) -> Tensor:
        """query (1, heads, q, dim), keys and values (1, kv_heads, tokens, dim) -> (1, q, heads, dim)."""
        past = keys.shape[2] - query.shape[2]
        if sinks is not None or past % BLOCK:
            raise IcrError(
                "prefill=xattention cannot run on a model with attention sinks; leave it out"
                if sinks is not None
                else f"prefill=xattention goes in pieces of a multiple of {BLOCK} tokens; set prefill_chunk= to one"
            )
        kept = tiles(query[0], keys[0], past, scale, self.threshold)
        out = attend(query[0], keys[0], values[0], kept, past, scale)
        start = time.perf_counter()
        rows, first = kept.shape[1], past // BLOCK
        self.computed += int(kept.sum())
        self.all += kept.shape[0] * (rows * (first + 1) + rows * (rows - 1) // 2)
        self.masses.append(mass(query[0], keys[0], kept, past, scale))
        self.untimed += time.perf_counter() - start
        return out.transpose(0, 1).unsqueeze(0)

    def report(self) -> dict[str, float]:
        """Share of the causal tiles that was computed, and of the attention that is kept."""
        if not self.all:
            return {}
        return {
            "prefill_fraction": round(self.computed / self.all, 6),
            "prefill_mass_kept": round(sum(self.masses) / len(self.masses), 6),
        }
