"""Mean and covariance of a prompt's queries before their rotary positions, gathered while it is prefilled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .rotary import Rotary


class Moments:
    """Sums over the prompt's queries, a layer and row: count, sum and sum of outer products, float32."""

    def __init__(self, rotary: Rotary, skip: int, where: Sequence[int]) -> None:
        """`skip`: first tokens of a prompt that are left out (sinks, whose queries are unlike the others); `where`: the
        model's layers that are gathered, in order."""
        self._rotary, self._skip = rotary, skip
        self._turned = [layer in rotary.layers for layer in where]
        self._sums: dict[tuple[int, int], tuple[int, Tensor, Tensor]] = {}
        self._columns: dict[int, int] = {}

    def add(self, layer: int, query: Tensor, pads: list[int]) -> None:
        """Queries (batch, heads, q, dim) of the next columns of a left-padded batch."""
        start = self._columns.get(layer, 0)
        self._columns[layer] = start + query.shape[2]
        columns = torch.arange(start, start + query.shape[2], device=query.device)
        positions = torch.stack([(columns - pad).clamp(min=0) for pad in pads])
        plain = (self._rotary.turn(query, positions, back=True) if self._turned[layer] else query).float()
        for b in range(len(pads)):
            x = plain[b][:, columns >= pads[b] + self._skip]
            n, total, outer = self._sums.get((layer, b), (0, 0.0, 0.0))
            self._sums[layer, b] = (n + x.shape[1], total + x.sum(1), outer + x.transpose(1, 2) @ x)  # type: ignore[operator]

    def of(self, layer: int, row: int) -> tuple[Tensor, Tensor, Callable[[int], Tensor]]:
        """Mean (heads, dim), covariance (heads, dim, dim), and the average rotation of the next positions."""
        n, total, outer = self._sums[layer, row]
        mean = total / max(n, 1)
        cov = outer / max(n, 1) - mean.unsqueeze(2) * mean.unsqueeze(1)
        if not self._turned[layer]:
            return mean, cov, lambda future: torch.eye(mean.shape[-1], device=mean.device)
        return mean, cov, lambda future: self._rotary.average(n + self._skip, future, mean)
