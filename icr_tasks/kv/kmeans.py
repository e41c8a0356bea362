"""Segmented k-means over keys, (kv_heads, tokens, dim): RetroInfer's as released, and two cheaper ones.

`released` follows `segment_k_means` of the released code (microsoft/RetrievalAttention, cache_hub/kmeans.py), written
anew from what it does: keys centred on their head's mean; a centre begins at the middle of each stretch of `size` keys;
all but the last of the rounds stay within a segment and normalise the centres; the last lets every key choose among the
centres of all segments. Keys themselves are never normalised, and a centre that nobody chose stays where it was.
`fast` and `naive` normalise keys too and choose within the segment only: reduced variants with names of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 1024  # similarities are made this many points at a time, so that they stay in cache


def segments(n: int, segment: int, size: int) -> list[tuple[int, int, int]]:
    """(start, end, clusters) of each segment of n tokens: round(n / segment) equal ones, n / size clusters in
    all."""
    parts = max(1, round(n / segment))
    edges = [round(i * n / parts) for i in range(parts + 1)]
    return [(a, b, max(1, round((b - a) / size))) for a, b in zip(edges, edges[1:], strict=False) if b > a]


def n_clusters(n: int, segment: int, size: int) -> int:
    """Clusters over n tokens."""
    return sum(c for _, _, c in segments(n, segment, size))


def released(keys: Tensor, segment: int, size: int, rounds: int) -> Tensor:
    """Labels (kv_heads, tokens) of the released algorithm; `rounds` counts the last, global one."""
    points = keys.float()
    points = points - points.mean(1, keepdim=True)
    label = torch.empty(points.shape[:2], dtype=torch.long, device=keys.device)
    parts = segments(keys.shape[1], segment, size)
    for head in range(points.shape[0]):
        found = []
        for start, end, clusters in parts:
            x = points[head, start:end]
            centres = x[_middles(len(x), clusters, x.device)]
            for _ in range(rounds - 1):
                centres = _moved(centres, _summed(x, _nearest(x, centres), clusters))
            found.append(centres)
        label[head] = _nearest(points[head], torch.cat(found))
    return label


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
            centres = _start(x, clusters)
            for _ in range(rounds):
                total = _summed(x, (x @ centres.T).argmax(1), clusters)
                centres = torch.nn.functional.normalize(total, dim=-1)
            label[head, start:end] = (x @ centres.T).argmax(1) + first
        first += clusters
    return label


def fast(keys: Tensor, segment: int, size: int, rounds: int) -> Tensor:
    """One Lloyd round on every second point from the same start, then the final choice. Returns (kv_heads,
    tokens)."""
    points, first = prepare(keys), 0
    label = torch.empty(points.shape[:2], dtype=torch.long, device=keys.device)
    for start, end, clusters in segments(keys.shape[1], segment, size):
        for head in range(points.shape[0]):
            x = points[head, start:end]
            centres, half = _start(x, clusters), x[::2]
            centres = _moved(centres, _summed(half, _nearest(half, centres), clusters))
            label[head, start:end] = _nearest(x, centres) + first
        first += clusters
    return label


def _start(x: Tensor, clusters: int) -> Tensor:
    """Every size-th point: neighbours in the text are alike, so this start is close to the end."""
    return x[torch.linspace(0, len(x) - 1, clusters, device=x.device).round().long()]


def _middles(n: int, clusters: int, device: torch.device) -> Tensor:
    """Where the released code begins: the middle of each of `clusters` equal stretches of n points."""
    step = n / clusters
    return (torch.arange(clusters, device=device) * step + step / 2).long().clamp(max=n - 1)


def _summed(x: Tensor, label: Tensor, clusters: int) -> Tensor:
    return x.new_zeros(clusters, x.shape[1]).index_add_(0, label, x)


def _moved(centres: Tensor, total: Tensor) -> Tensor:
    """Normalised means; a centre that no point chose stays where it is."""
    return torch.where(total.any(1, keepdim=True), torch.nn.functional.normalize(total, dim=-1), centres)


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Most similar centre of each point."""
    turned = centres.T.contiguous()
    return torch.cat([(block @ turned).argmax(1) for block in x.split(_ROWS)])


BUILDS: dict[str, Callable[[Tensor, int, int, int], Tensor]] = {
    "released": released,
    "fast": fast,
    "naive": naive,
}
