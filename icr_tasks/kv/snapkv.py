"""SnapKV (arXiv 2404.14469): what the last `window` prompt tokens attend to stays, together with those
tokens.

Attention of the window's queries, summed, averaged over neighbours (`kernel`) so that whole phrases stay,
averaged over the query heads of a KV head. In a query-aware run the window holds the question; in a
query-agnostic one the end of the context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import torch
from ..params import Whole
from ..registry import kv_method
from .evict import EVICTOR, QUIET, Evictor

if TYPE_CHECKING:
    from torch import Tensor


@kv_method(
    "snapkv",
    budget=0.5,
    frees=True,
    knobs={"window": Whole(64), "kernel": Whole(5, low=1, odd=True), **EVICTOR},
    quiet=QUIET,
    version=2,  # 1 pooled the window as well
)
class SnapKV(Evictor):
    """Keeps budget * prompt tokens: the window and the most attended before it."""

    kernel = 5

    @property
    def needs_queries(self) -> int:  # type: ignore[override]
        """The window's queries."""
        return self.window

    def score(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """Attention of the window's queries, smoothed: (kv_heads, tokens). queries: (kv_heads, group, window,
        dim)."""
        assert queries is not None
        prefix, seen = window_attention(keys, queries, scale), queries.shape[2]
        # the window's own columns stay out of the pool, as in the released code: they are kept in any case
        smooth = torch.nn.functional.avg_pool1d(prefix, self.kernel, stride=1, padding=self.kernel // 2)
        return torch.nn.functional.pad(smooth.mean(1), (0, seen))


def window_attention(keys: Tensor, queries: Tensor, scale: float) -> Tensor:
    """What the last queries (kv_heads, group, window, dim) attend to before themselves, summed over them:
    (kv_heads, group, tokens - window)."""
    n, seen = keys.shape[1], queries.shape[2]
    logits = (queries @ keys.unsqueeze(1).transpose(2, 3)).float() * scale
    future = torch.ones(seen, seen, dtype=torch.bool, device=keys.device).triu(1)
    logits[..., n - seen :].masked_fill_(future, -torch.inf)
    return torch.softmax(logits, -1).sum(2)[..., : n - seen]
