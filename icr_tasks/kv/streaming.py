"""StreamingLLM (arXiv 2309.17453) at prefill: the first `sink` tokens and the last ones stay, the rest is
freed.

Positions stay those of the prompt (no re-rotation), as for all evictors here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import torch
from ..params import Whole
from ..registry import kv_method
from .base import Method

if TYPE_CHECKING:
    from torch import Tensor


@kv_method("streaming", budget=0.5, frees=True, knobs={"sink": Whole(4), "window": Whole(1)})
class Streaming(Method):
    """Keeps budget * prompt tokens: sink + the most recent."""

    def keep(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """Positions, (kv_heads, kept)."""
        heads, n, _ = keys.shape
        every = torch.arange(n, device=keys.device)
        kept = torch.cat([every[: self.sink], every[n - (self.n_kept(n) - self.sink) :]])
        return kept.expand(heads, -1)
