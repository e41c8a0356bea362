"""ChunkKV (arXiv 2502.00299): whole stretches of `chunk` tokens stay, so that phrases are not torn apart.

A chunk's score is the mean, over its tokens, of the attention of the last `window` queries, summed over the KV heads of the
layer, which keep the same chunks. Here the budget is met to the token: the last chunk that fits only in part is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..lazy import torch
from ..params import Whole
from ..registry import kv_method
from .evict import Evictor, top
from .snapkv import window_attention

if TYPE_CHECKING:
    from torch import Tensor


@kv_method(
    "chunkkv",
    budget=0.5,
    frees=True,
    knobs={"window": Whole(64), "chunk": Whole(20, low=1), "every": Whole(0)},
)
class ChunkKV(Evictor):
    """Keeps budget * prompt tokens: the window and the most attended chunks before it."""

    chunk = 20
    together = True

    @property
    def needs_queries(self) -> int:  # type: ignore[override]
        """The window's queries."""
        return self.window

    def score(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """Each token has its chunk's score, the same for all heads: (kv_heads, tokens)."""
        assert queries is not None
        heads, n, _ = keys.shape
        attention = window_attention(keys, queries, scale).mean(1).sum(0)  # (tokens before the window,)
        m = attention.shape[0]
        chunks = -(-m // self.chunk) if m else 0
        at = torch.arange(m, device=keys.device) // self.chunk
        total = attention.new_zeros(chunks).index_add_(0, at, attention)
        sizes = attention.new_zeros(chunks).index_add_(0, at, torch.ones_like(attention))
        # earlier tokens of a chunk first where it fits in part, by less than any two chunks differ
        order = torch.arange(n, 0, -1, device=keys.device, dtype=torch.float64)[:m]
        rank = (total / sizes).argsort().argsort().double()[at] + order / (2 * n)
        return torch.nn.functional.pad(rank, (0, n - m)).expand(heads, -1)

    def keep_each(
        self,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        queries: Tensor | None,
        scale: float,
        kept: int,
    ) -> list[Tensor]:
        """The same positions for all heads, which have one length."""
        scores = self.score(torch.stack(tuple(keys)), torch.stack(tuple(values)), queries, scale)
        return list(top(scores, kept, self.sink, self.window))
