"""Exact top-k: the k keys with the most attention, per KV head. The upper bound of every method that reads a
part.

A fidelity simulator, not a speed-up: ranking scores all keys at every step (half of the cache is read).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..params import Whole
from ..registry import kv_method
from .base import Method, Picked, Zone, products, rank

if TYPE_CHECKING:
    from torch import Tensor


@kv_method(
    "topk",
    budget=0.05,
    frees=False,
    knobs={"sink": Whole(4), "window": Whole(64), "update": Whole(1024, low=1)},
)
class TopK(Method):
    """Reads max(1, budget * prompt) tokens beside sink and window."""

    def n_retrieved(self, n: int) -> int:
        """Tokens read of the zone for a prompt of n tokens."""
        return max(1, self.share(n))

    def applies(self, n: int) -> bool:
        """A prompt that fits into sink + window + k is read in full; budget 1 still runs (the identity
        check)."""
        return n > self.sink + self.window + (0 if self.whole else self.n_retrieved(n))

    def zone(self, n: int) -> Zone:
        """Zone with k fixed by the prompt's length."""
        zone = super().zone(n)
        zone.retrieve = self.n_retrieved(n)
        return zone

    def select(self, query: Tensor, keys: Tensor, zone: Zone, scale: float) -> Picked:
        """The zone's keys with the largest share of the exact softmax over all keys, summed over the query
        group."""
        scores = rank(products(query, keys) * scale)[:, zone.start : zone.end]
        k = scores.shape[1] if self.whole else min(zone.retrieve, scores.shape[1])
        found = scores.topk(k, dim=-1, sorted=False).indices
        return Picked(
            found, index_bytes=(scores.shape[1] - k) * keys.shape[0] * keys.shape[2] * keys.element_size()
        )

    def formula(self, n: int, heads: int, dim: int, item: int) -> dict[str, float]:
        """Reads every key, and the values of sink + window + k tokens."""
        zone = self.zone(n)
        read = n - (zone.end - zone.start) + zone.retrieve + 1
        return {
            "stored": 2 * heads * dim * item * n,
            "read": heads * dim * item * (n + 1 + read),
            "index": 0,
        }
