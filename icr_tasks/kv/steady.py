"""Sink + window only: the first tokens, the last ones and all generated ones are read. The floor of the
family.

Without a budget the window is `window` tokens; with one, sink + window together are that share of the prompt.
"""

from __future__ import annotations

from ..params import Whole
from ..registry import kv_method
from .base import Method, Zone


@kv_method(
    "steady",
    budget=None,
    frees=False,
    knobs={"sink": Whole(4), "window": Whole(64)},
    inside=("sink", "window"),
)
class Steady(Method):
    """Stores everything, reads sink + window (StreamingLLM's pattern with the original positions)."""

    update = 1 << 62  # generated tokens are always read: nothing moves into the zone, which nobody reads

    def reach(self, n: int) -> int:
        """Tokens of the local window for a prompt of n tokens."""
        return self.window if self.budget is None else self.n_kept(n) - self.sink

    @property
    def least(self) -> int:
        """Tokens that a budget must hold."""
        return 0 if self.budget is None else self.sink + self.window

    def zone(self, n: int) -> Zone:
        """What lies between sink and window is never read."""
        return Zone(self.sink, max(n - self.reach(n), self.sink))

    def applies(self, n: int) -> bool:
        """A prompt that fits into sink + window is read in full, as is one whose budget cannot hold them."""
        reach = self.reach(n)
        return reach >= 0 and n > self.sink + max(reach, self.window) and self.n_kept(n) >= self.least

    def formula(self, n: int, heads: int, dim: int, item: int) -> dict[str, float]:
        """Reads sink + window + the new token."""
        read = self.sink + self.reach(n) + 1
        return {"stored": 2 * heads * dim * item * n, "read": 2 * heads * dim * item * read, "index": 0}
