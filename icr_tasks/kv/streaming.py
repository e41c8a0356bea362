"""StreamingLLM (arXiv 2309.17453): the first `sink` tokens and the most recent ones stay, while the prompt is
compressed and at every generated token after it (`every=1`).

The cache keeps its size: each new token takes the place of the oldest behind the sink. Positions stay those of the
prompt (no re-rotation), as for all evictors here, so the model must reach that far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..lazy import torch
from ..params import Whole
from ..registry import kv_method
from .evict import Evictor

if TYPE_CHECKING:
    from torch import Tensor


@kv_method(
    "streaming", budget=0.5, frees=True, knobs={"sink": Whole(4), "window": Whole(1), "every": Whole(1)}
)
class Streaming(Evictor):
    """Keeps budget * prompt tokens: sink + the most recent."""

    def keep(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """Positions, (kv_heads, kept)."""
        return self._ends(keys.shape[1], self.n_kept(keys.shape[1]), keys).expand(keys.shape[0], -1)

    def keep_each(
        self,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        queries: Tensor | None,
        scale: float,
        kept: int,
    ) -> list[Tensor]:
        """The same of each head."""
        return [self._ends(len(one), kept, one) for one in keys]

    def _ends(self, n: int, kept: int, like: Tensor) -> Tensor:
        every = torch.arange(n, device=like.device)
        return torch.cat([every[: self.sink], every[n - (kept - self.sink) :]])
