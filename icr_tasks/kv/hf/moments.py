"""Mean and covariance of a prompt's queries before their rotary positions, gathered while it is prefilled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import IcrError


class Rotary:
    """A model's rotary positions through its own functions, so that every layout of dimensions is right.

    Raises IcrError for a model without one rotation for all layers.
    """

    def __init__(self, model: Any) -> None:
        decoder = model.get_decoder()
        self._angles = getattr(decoder, "rotary_emb", None)
        self._apply = getattr(sys.modules[type(decoder).__module__], "apply_rotary_pos_emb", None)
        try:
            self.turn(
                torch.zeros(1, 1, 1, self._dim(model), device=model.device),
                torch.zeros(1, 1, dtype=torch.long),
            )
        except Exception as error:  # whatever a model's own code says to arguments of another kind
            raise IcrError(
                f"kv:expected cannot run on {model.config.get_text_config().model_type}: its rotary positions are not one "
                "rotation for all layers; use kv:snapkv or kv:keydiff"
            ) from error

    @staticmethod
    def _dim(model: Any) -> int:
        config = model.config.get_text_config()
        return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def turn(self, x: Tensor, positions: Tensor, back: bool = False) -> Tensor:
        """x (batch, heads, n, dim) at positions (batch, n), rotated forth or back."""
        assert self._angles is not None and self._apply is not None
        cos, sin = self._angles(x, positions.to(x.device))
        if not back:
            return self._apply(x, x, cos, sin)[0]
        size = cos * cos + sin * sin  # 1, or what long-context scaling made of it
        return self._apply(x, x, cos / size, -sin / size)[0]


class Moments:
    """Sums over the prompt's queries, a layer and row: count, sum and sum of outer products, float32."""

    def __init__(self, rotary: Rotary, skip: int) -> None:
        """`skip`: first tokens of a prompt that are left out (sinks, whose queries are unlike the others)."""
        self._rotary, self._skip = rotary, skip
        self._sums: dict[tuple[int, int], tuple[int, Tensor, Tensor]] = {}
        self._columns: dict[int, int] = {}

    def add(self, layer: int, query: Tensor, pads: list[int]) -> None:
        """Queries (batch, heads, q, dim) of the next columns of a left-padded batch."""
        start = self._columns.get(layer, 0)
        self._columns[layer] = start + query.shape[2]
        columns = torch.arange(start, start + query.shape[2], device=query.device)
        positions = torch.stack([(columns - pad).clamp(min=0) for pad in pads])
        plain = self._rotary.turn(query, positions, back=True).float()
        for b in range(len(pads)):
            x = plain[b][:, columns >= pads[b] + self._skip]
            n, total, outer = self._sums.get((layer, b), (0, 0.0, 0.0))
            self._sums[layer, b] = (n + x.shape[1], total + x.sum(1), outer + x.transpose(1, 2) @ x)  # type: ignore[operator]

    def of(self, layer: int, row: int) -> tuple[Tensor, Tensor, Callable[[int], Tensor]]:
        """Mean (heads, dim), covariance (heads, dim, dim), and the average rotation of the next positions."""
        n, total, outer = self._sums[layer, row]
        mean = total / max(n, 1)
        cov = outer / max(n, 1) - mean.unsqueeze(2) * mean.unsqueeze(1)
        return mean, cov, lambda future: self._average(n + self._skip, future, mean)

    def _average(self, start: int, future: int, like: Tensor) -> Tensor:
        """(dim, dim): x @ it is x rotated to each of `future` positions from `start` on, averaged."""
        unit = torch.eye(like.shape[-1], device=like.device)
        rows = unit.view(1, 1, len(unit), -1)
        total = torch.zeros_like(unit)
        for at in range(start, start + future):
            positions = torch.full((1, len(unit)), at, device=like.device)
            total += self._rotary.turn(rows, positions)[0, 0]
        return total / future
