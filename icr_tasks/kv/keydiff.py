"""KeyDiff (arXiv 2504.15364): keys that point away from the average key stay. Needs no query.

Score of a key = - cosine(key, mean of the normalised keys), per KV head. `sink` and `window` tokens can be
protected.
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
    "keydiff", budget=0.5, frees=True, knobs={"sink": Whole(0), "window": Whole(0), **EVICTOR}, quiet=QUIET
)
class KeyDiff(Evictor):
    """Keeps budget * prompt tokens with the most distinctive keys."""

    def score(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """How far a key points away from the average one, (kv_heads, tokens)."""
        unit = torch.nn.functional.normalize(keys.float(), dim=-1)
        anchor = torch.nn.functional.normalize(unit.mean(1, keepdim=True), dim=-1)
        return -(unit * anchor).sum(-1)
