"""KeyDiff (arXiv 2504.15364): keys that point away from the average key stay. Needs no query.

Score of a key = - cosine(key, mean of the normalised keys), per KV head. `sink` and `window` tokens can be
protected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import torch
from ..params import Whole
from ..registry import kv_method
from .base import Method

if TYPE_CHECKING:
    from torch import Tensor


@kv_method("keydiff", budget=0.5, frees=True, knobs={"sink": Whole(0), "window": Whole(0)})
class KeyDiff(Method):
    """Keeps budget * prompt tokens with the most distinctive keys."""

    def applies(self, n: int) -> bool:
        """Any prompt can be thinned."""
        return n > max(1, self.sink + self.window)

    def keep(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """Positions, (kv_heads, kept) ascending."""
        unit = torch.nn.functional.normalize(keys.float(), dim=-1)
        anchor = torch.nn.functional.normalize(unit.mean(1, keepdim=True), dim=-1)
        return top(-(unit * anchor).sum(-1), self.n_kept(keys.shape[1]), self.sink, self.window)


def top(scores: Tensor, kept: int, sink: int, window: int) -> Tensor:
    """The `kept` best positions, (kv_heads, kept) ascending, with the first `sink` and last `window` among
    them."""
    scores = scores.clone()
    scores[:, :sink] = torch.inf
    scores[:, scores.shape[1] - window :] = torch.inf
    return scores.topk(max(kept, 1), dim=-1, sorted=False).indices.sort(-1).values
