"""Quest (arXiv 2406.10774): the zone is cut into pages; a page's score is the most its keys could score.

The bound for a query is sum over dimensions of max(q * low, q * high), low and high being the page's
elementwise extremes. Pages are ranked per KV head; the best are read whole. Quest as released leaves the first two
layers dense: `dense=2`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..params import Whole
from ..registry import kv_method
from .base import Method, Picked, Zone, laid_out, products, rank, size_of

if TYPE_CHECKING:
    from torch import Tensor

    from .rows import Blocks


@kv_method(
    "page",
    budget=0.05,
    frees=False,
    knobs={
        "sink": Whole(4),
        "window": Whole(64),
        "update": Whole(1024, low=1),
        "page": Whole(16, low=1),
        "dense": Whole(0, text="first layers that are read in full; 2 in Quest as released"),
    },
    quiet=("dense",),
    version=2,  # 1 counted pages from the end of the sink
)
class Page(Method):
    """Reads ceil(budget * prompt / page) pages beside sink and window, which are rounded up to whole
    pages."""

    page = 16

    def n_pages(self, n: int) -> int:
        """Pages read for a prompt of n tokens."""
        return -(-max(1, self.share(n)) // self.page)

    def applies(self, n: int) -> bool:
        """A prompt of which no page would be left out is read in full; budget 1 still runs (the identity
        check)."""
        zone = self.zone(n)
        return zone.end - zone.start > (0 if self.whole else zone.retrieve * self.page)

    def zone(self, n: int) -> Zone:
        """Zone of whole pages, counted from the first token as a paged cache has them: what of a page belongs
        to the sink or to the window is read with it. The number of pages read follows from the prompt's
        length."""
        start = -(-self.sink // self.page) * self.page
        end = max(start, (n - self.window) // self.page * self.page)
        return Zone(start, end, retrieve=self.n_pages(n))

    def end(self, zone: Zone, n: int) -> int:
        """As every method's, in whole pages."""
        end = super().end(zone, n)
        return zone.end + (end - zone.end) // self.page * self.page

    def build(self, keys: Tensor, values: Tensor) -> tuple[Tensor | Blocks, Tensor | Blocks]:
        """(low, high), each (kv_heads, pages, dim)."""
        pages = keys.unflatten(1, (-1, self.page))
        return laid_out(pages.amin(2)), laid_out(pages.amax(2))

    def select(self, query: Tensor, keys: Tensor, zone: Zone, scale: float) -> Picked:
        """All tokens of the pages with the highest bound."""
        low, high = zone.index
        bound = products(query.clamp(min=0), high).add_(products(query.clamp(max=0), low)).mul_(scale)
        count = low.shape[1] if self.whole else min(zone.retrieve, low.shape[1])
        best = rank(bound).topk(count, dim=-1, sorted=False).indices
        return Picked(best, index_bytes=self.index_bytes(zone), run=self.page)

    def index_bytes(self, zone: Zone) -> int:
        """Both extremes of every page."""
        return sum(map(size_of, zone.index))

    def formula(self, n: int, heads: int, dim: int, item: int) -> dict[str, float]:
        """Reads all extremes, and keys and values of sink + window + pages."""
        zone = self.zone(n)
        size, each = zone.end - zone.start, 2 * heads * dim * item
        index = each * (size // self.page)
        read = n - size + 1 + min(zone.retrieve * self.page, size)
        return {"stored": each * n, "read": each * read + index, "index": index}
