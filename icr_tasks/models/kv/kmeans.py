"""Segmented spherical k-means over keys, (kv_heads, tokens, dim): the naive way and a fast one.

Both return a cluster number per token; clusters of a segment of `segment` tokens hold `size` keys on average. Keys
are centred on the head's mean and normalised (RetroInfer, `segment_k_means`).

Fast: a segment's points are halved along their main direction until groups hold about 16 clusters; k-means runs inside
the groups (a few per cent of the work, all groups in one batched product), then every point chooses among the 128
centroids nearest to its group. Naive chooses among all of a segment's centroids in every round.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GROUP_CLUSTERS, _ROUNDS, _CANDIDATES = 16, 3, 128
_PROJECTED, _SAMPLE = 16, 256  # the tree needs only a rough idea of the points


def segments(n: int, segment: int, size: int) -> list[tuple[int, int, int]]:
    """(start, end, clusters) of each segment of n tokens: round(n / segment) equal ones, n / size clusters in all."""
    parts = max(1, round(n / segment))
    edges = [round(i * n / parts) for i in range(parts + 1)]
    return [(a, b, max(1, round((b - a) / size))) for a, b in zip(edges, edges[1:], strict=False) if b > a]


def n_clusters(n: int, segment: int, size: int) -> int:
    """Clusters over n tokens."""
    return sum(c for _, _, c in segments(n, segment, size))


def prepare(keys: Tensor) -> Tensor:
    """Centred on the head's mean and normalised, float32."""
    keys = keys.float()
    return torch.nn.functional.normalize(keys - keys.mean(1, keepdim=True), dim=-1)


def naive(keys: Tensor, segment: int, size: int, rounds: int) -> Tensor:
    """Lloyd's rounds over every head and segment, one after the other. Returns (kv_heads, tokens)."""
    points, first = prepare(keys), 0
    label = torch.empty(points.shape[:2], dtype=torch.long, device=keys.device)
    for start, end, clusters in segments(keys.shape[1], segment, size):
        for head in range(points.shape[0]):
            x = points[head, start:end]
            centres = x[torch.linspace(0, len(x) - 1, clusters, device=x.device).round().long()]
            for _ in range(rounds):
                found = (x @ centres.T).argmax(1)
                centres = torch.nn.functional.normalize(torch.zeros_like(centres).index_add_(0, found, x), dim=-1)
            label[head, start:end] = (x @ centres.T).argmax(1) + first
        first += clusters
    return label


def fast(keys: Tensor, segment: int, size: int, rounds: int) -> Tensor:
    """Grouped k-means, then one choice among the centroids near the group. Returns (kv_heads, tokens)."""
    points, first = prepare(keys), 0
    label = torch.empty(points.shape[:2], dtype=torch.long, device=keys.device)
    for start, end, clusters in segments(keys.shape[1], segment, size):
        label[:, start:end] = _grouped(points[:, start:end], clusters, min(rounds, _ROUNDS)) + first
        first += clusters
    return label


BUILDS = {"fast": fast, "naive": naive}


def _grouped(x: Tensor, clusters: int, rounds: int) -> Tensor:
    """Cluster of each point of one segment (kv_heads, n, dim)."""
    heads, n, dim = x.shape
    levels = max(0, int(math.log2(max(clusters / _GROUP_CLUSTERS, 1))))
    groups, each = 1 << levels, clusters >> levels
    used = n // groups * groups
    order = _tree(x[:, :used], levels)
    grouped = _take(x, order).view(heads, groups, -1, dim)
    centres = grouped[:, :, torch.linspace(0, used // groups - 1, each, device=x.device).round().long()]
    for _ in range(rounds):
        found = (grouped @ centres.transpose(2, 3)).argmax(-1)
        one_hot = torch.nn.functional.one_hot(found, each).to(x.dtype)
        centres = torch.nn.functional.normalize(one_hot.transpose(2, 3) @ grouped, dim=-1)
    means = centres.mean(2)
    centres = centres.reshape(heads, -1, dim)
    if missing := clusters - centres.shape[1]:  # clusters is not a multiple of groups: spread some points as centres
        spread = torch.linspace(0, n - 1, missing + 2, device=x.device).round().long()[1:-1]
        centres = torch.cat([centres, x[:, spread]], 1)
    near = (means @ centres.transpose(1, 2)).topk(min(_CANDIDATES, clusters), dim=-1, sorted=False).indices
    offered = _take(centres, near.flatten(1)).view(heads, groups, -1, dim)
    chosen = near.gather(2, (grouped @ offered.transpose(2, 3)).argmax(-1)).flatten(1)
    label = torch.empty(heads, n, dtype=torch.long, device=x.device).scatter_(1, order, chosen)
    if used < n:
        label[:, used:] = (x[:, used:] @ centres.transpose(1, 2)).argmax(-1)
    return label


def _take(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[2]))


def _tree(x: Tensor, levels: int) -> Tensor:
    """Points (kv_heads, n, dim) in an order whose 2**levels equal stretches are groups of like points: (kv_heads, n).

    Each level sorts every group along its main direction, in a random projection, so that its halves are the next
    groups.
    """
    heads, n, dim = x.shape
    order = torch.arange(n, device=x.device).expand(heads, -1)
    mix = torch.randn(dim, _PROJECTED, generator=torch.Generator().manual_seed(0)).to(x)
    small = x @ mix if dim > _PROJECTED else x
    for level in range(levels):
        inside = _take(small, order).view(heads << level, n >> level, -1)
        sample = inside[:, :: max(1, (n >> level) // _SAMPLE)]
        sample = sample - sample.mean(1, keepdim=True)
        direction = sample[:, :1]
        for _ in range(3):  # power iteration
            direction = torch.nn.functional.normalize((direction @ sample.transpose(1, 2)) @ sample, dim=-1)
        along = (inside @ direction.transpose(1, 2)).squeeze(-1).argsort(-1)
        order = order.reshape(heads << level, -1).gather(1, along).reshape(heads, -1)
    return order
