"""RetroInfer's wave index (arXiv 2505.02922): clusters of keys; the best are read, the next estimated.

Steady zone: sink + window + generated tokens. Retrieval zone: the tokens of the `budget` share of clusters
whose centroids score highest. Estimation zone: the next `estimation` share adds exp(q.centroid) times the
cluster's size and sum of values to the softmax without reading its tokens. Defaults are the released
configuration (0.018 / 0.232 / 4 / 64, 16 keys a cluster, segments of 8192, 10 rounds with a global last assignment).
Prompts below sink + window + `update` are read in full, as there. An independent implementation of the published
semantics; `build=fast` and `build=naive` are reduced indexes (`kmeans`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import IcrError
from ..lazy import torch
from ..params import Number, Whole, Word
from ..registry import kv_method
from .base import Method, Picked, Zone, laid_out, plain, products, rank, size_of, take
from .kmeans import BUILDS, n_clusters
from .rows import Blocks

if TYPE_CHECKING:
    from torch import Tensor

_NUMBER = 4  # bytes of an entry of members, starts and sizes


@dataclass
class Index:
    """Clusters of the zone, per KV head: members sorted by cluster, and where each cluster begins."""

    centres: Tensor | Blocks  # (kv_heads, clusters, dim) mean key
    sums: Tensor  # (kv_heads, clusters, dim) sum of values
    members: Tensor  # (kv_heads, tokens) int32 positions
    starts: Tensor  # (kv_heads, clusters) int32
    sizes: Tensor  # (kv_heads, clusters) int32

    def __post_init__(self) -> None:
        if not isinstance(self.centres, Blocks):
            self.centres = laid_out(self.centres)
        empty = self.sizes == 0
        self.empty = empty.unsqueeze(1) if bool(empty.any()) else None  # clusters that nobody chose

    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that takes memory."""
        return plain(self.centres), self.sums, self.members, self.starts, self.sizes


@kv_method(
    "cluster",
    budget=0.018,
    frees=False,
    knobs={
        "sink": Whole(4),
        "window": Whole(64),
        "update": Whole(1024, low=1),
        "estimation": Number(0.232, low=0, high=1),
        "size": Whole(16, low=1),
        "segment": Whole(8192, low=16),
        "rounds": Whole(10, low=1),
        "build": Word("released", words=("released", "fast", "naive")),
    },
)
class Cluster(Method):
    """Reads about budget of the zone's tokens, estimates a further `estimation` share."""

    estimation, size, segment, rounds = 0.232, 16, 8192, 10
    update, build_with = 1024, "released"

    @staticmethod
    def check_together(differ: Mapping[str, object]) -> None:
        """Raises IcrError for a knob that the chosen build ignores: it would name another run and change
        nothing."""
        if "rounds" in differ and differ.get("build") == "fast":
            raise IcrError("kv:cluster: rounds= does nothing with build=fast; leave out one of them")

    def __init__(self, *, build: str = "released", **knobs: object) -> None:
        super().__init__(**knobs)  # type: ignore[arg-type]
        self.build_with = build

    def applies(self, n: int) -> bool:
        """RetroInfer reads shorter prompts in full."""
        return n >= self.sink + self.window + self.update

    def build(self, keys: Tensor, values: Tensor) -> Index:
        """Index of the zone; clusters of a head may be empty."""
        heads, n, dim = keys.shape
        label = BUILDS[self.build_with](keys, self.segment, self.size, self.rounds)
        clusters = n_clusters(n, self.segment, self.size)
        sizes = torch.zeros(heads, clusters, dtype=torch.long, device=keys.device)
        sizes.scatter_add_(1, label, torch.ones_like(label))
        at = (label + torch.arange(heads, device=keys.device).unsqueeze(1) * clusters).flatten()
        flat = torch.zeros(heads * clusters, dim, device=keys.device)
        centres = flat.index_add(0, at, keys.reshape(-1, dim).float()).view(heads, clusters, dim)
        sums = flat.index_add(0, at, values.reshape(-1, dim).float()).view(heads, clusters, dim)
        centres = centres / sizes.clamp(min=1).unsqueeze(-1)
        members = label.argsort(dim=1, stable=True).int()
        starts = (sizes.cumsum(1) - sizes).int()
        return Index(centres.to(keys.dtype), sums.to(values.dtype), members, starts, sizes.int())

    def extend(self, zone: Zone, keys: Tensor, values: Tensor) -> Index:
        """New tokens form clusters of their own, appended."""
        old, had = zone.index, zone.index.members.shape[1]
        new = self.build(keys[:, zone.start + had : zone.end], values[:, zone.start + had : zone.end])
        new.members, new.starts = new.members + had, new.starts + had
        return Index(*(torch.cat(pair, 1) for pair in zip(old.tensors(), new.tensors(), strict=True)))

    def counts(self, clusters: int) -> tuple[int, int]:
        """(clusters read, clusters estimated)."""
        share = (
            self.budget / self.size / clusters if isinstance(self.budget, int) else float(self.budget or 0)
        )
        read = min(max(round(clusters * share), 1), clusters)
        return read, min(round(clusters * self.estimation), clusters - read)

    def select(self, query: Tensor, keys: Tensor, zone: Zone, scale: float) -> Picked:
        """Tokens of the best clusters, and the estimate of the next ones."""
        index: Index = zone.index
        read, estimated = self.counts(index.centres.shape[1])
        logits = products(query, index.centres).float().mul_(scale)
        if index.empty is not None:
            logits.masked_fill_(index.empty, -torch.inf)
        best, rough = _two_best(rank(logits), read, estimated)
        at, valid, real = _expand(index, best)
        cost = size_of(index.centres) + index.sizes.numel() * _NUMBER
        cost += real * _NUMBER
        if not estimated:
            return Picked(at, valid, None, cost, real)
        weights = logits.gather(2, rough.unsqueeze(1).expand(-1, logits.shape[1], -1))
        sums = take(index.sums, rough)
        sizes = index.sizes.gather(1, rough).float()
        return Picked(at, valid, (weights, sums, sizes), cost + sums.numel() * sums.element_size(), real)

    def index_bytes(self, zone: Zone) -> int:
        """Bytes of all index tensors."""
        index: Index = zone.index
        return sum(map(size_of, (index.centres, index.sums, index.members, index.starts, index.sizes)))

    def formula(self, n: int, heads: int, dim: int, item: int) -> dict[str, float]:
        """With every cluster of average size: real ones near the query are larger, so more is read than
        this."""
        zone = self.zone(n)
        tokens, row = zone.end - zone.start, heads * dim * item
        clusters = n_clusters(tokens, self.segment, self.size)
        read, estimated = self.counts(clusters)
        got = tokens * read / clusters
        index = clusters * (2 * row + 2 * heads * _NUMBER) + tokens * heads * _NUMBER
        ranking = clusters * (row + heads * _NUMBER) + estimated * row + got * heads * _NUMBER
        return {"stored": 2 * row * n, "read": 2 * row * (n - tokens + 1 + got) + ranking, "index": index}


def _two_best(scores: Tensor, first: int, second: int) -> tuple[Tensor, Tensor]:
    """Where the `first` highest of scores (kv_heads, n) are, and where the next `second`, both in no order: what reads
    them asks for none, and sorting 2,000 of 8,192 takes twice as long as finding them."""
    top = scores.topk(first + second, dim=-1, sorted=False)
    inside = top.values.topk(first, dim=-1, sorted=False).indices
    if not second:
        return top.indices.gather(1, inside), top.indices[:, :0]
    others = torch.ones_like(top.indices, dtype=torch.bool).scatter_(1, inside, False)
    return top.indices.gather(1, inside), top.indices[others].view(len(scores), second)


def _expand(index: Index, best: Tensor) -> tuple[Tensor, Tensor, int]:
    """Positions of the members of clusters (kv_heads, p), padded to the head with the most; which are real, and how
    many."""
    sizes = index.sizes.gather(1, best)
    ends = sizes.cumsum(1, dtype=torch.int32)
    longest: list[int] = ends[:, -1].tolist()
    slot = torch.arange(max(longest), device=best.device)
    # from a place in a head's list to one among its members; the fill takes the first ones again
    shift = torch.cat([index.starts.gather(1, best).add_(sizes).sub_(ends), -ends[:, -1:]], 1)
    fill = torch.tensor([[len(slot) - n] for n in longest], dtype=torch.int32, device=best.device)
    each = torch.cat([sizes, fill], 1).view(-1)
    place = torch.repeat_interleave(shift.view(-1), each, output_size=len(best) * len(slot))
    at = index.members.gather(1, place.view(len(best), -1) + slot)
    return at.long(), slot < ends[:, -1:], sum(longest)
