"""Expected Attention (arXiv 2510.00636): keys stay that future queries will want, whose distribution is taken from the prompt's.

Queries before their rotary positions have a mean and a covariance per head (without the first `sink` tokens). Both are turned by
the average rotation of the next `future` positions; a key's score is the mean of exp(q.k) under that Gaussian, exp(scale * mean.k +
scale^2 * k.cov.k / 2), normalised over the keys, averaged over the query heads of a KV head, times the length of its value.
Needs no question, so it serves a query-agnostic run.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ..errors import IcrError
from ..lazy import torch
from ..params import Flag, Number, Whole
from ..registry import kv_method
from .base import Observed
from .evict import FLOOR, Evictor

if TYPE_CHECKING:
    from torch import Tensor


@kv_method(
    "expected",
    budget=0.5,
    frees=True,
    knobs={
        "sink": Whole(4),
        "window": Whole(0),
        "future": Whole(512, low=1),
        "adaptive": Flag(False),
        "floor": Number(FLOOR, low=0, high=1),
    },
)
class Expected(Evictor):
    """Keeps budget * prompt tokens with the largest expected attention."""

    moments = True
    future = 512
    seen: Observed | None = None

    def at(self, seen: Observed) -> Any:
        """This method with one layer's queries."""
        own = copy.copy(self)
        own.seen = seen
        return own

    def score(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """(kv_heads, tokens). Keys of one head alone (`head`) or of all."""
        if self.seen is None or self.seen.mean is None or self.seen.cov is None or self.seen.average is None:
            raise IcrError(f"kv:{self.name} was not shown the prompt's queries")
        turn = self.seen.average(self.future)  # (dim, dim): x @ turn is the average rotation of x
        mean, cov = self.seen.mean @ turn, turn.T @ self.seen.cov @ turn
        heads = keys.shape[0]
        mean, cov = mean.view(heads, -1, mean.shape[-1]), cov.view(heads, -1, *cov.shape[-2:])
        k = keys[:, self.sink :].float()
        logits = (mean @ k.transpose(1, 2)) * scale  # (kv_heads, group, tokens)
        logits += torch.einsum("hni,hgij,hnj->hgn", k, cov, k) * (scale * scale / 2)
        worth = torch.softmax(logits, -1).mean(1) * values[:, self.sink :].float().norm(dim=-1)
        return torch.nn.functional.pad(worth, (self.sink, 0), value=float(worth.max()) + 1)
