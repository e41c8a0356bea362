"""Segmented spherical k-means over keys, (kv_heads, tokens, dim): the naive way and a fast one.

Both return a cluster number per token; clusters of a segment of `segment` tokens hold `size` keys on average. Keys
are centred on the head's mean and normalised (RetroInfer, `segment_k_means`).

Naive runs all of Lloyd's `rounds`. On real keys nearly all of the gain is in the first round, because the start (every
16th key) already follows the text: fast runs that one on half of the points, then the final choice. docs/kv.md has
the attention mass and the seconds of both.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS = 1024  # similarities are made this many points at a time, so that they stay in cache


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
            centres = _start(x, clusters)
            for _ in range(rounds):
                found = (x @ centres.T).argmax(1)
                centres = torch.nn.functional.normalize(torch.zeros_like(centres).index_add_(0, found, x), dim=-1)
            label[head, start:end] = (x @ centres.T).argmax(1) + first
        first += clusters
    return label


def fast(keys: Tensor, segment: int, size: int, rounds: int) -> Tensor:
    """One Lloyd round on every second point from the same start, then the final choice. Returns (kv_heads, tokens)."""
    points, first = prepare(keys), 0
    label = torch.empty(points.shape[:2], dtype=torch.long, device=keys.device)
    for start, end, clusters in segments(keys.shape[1], segment, size):
        for head in range(points.shape[0]):
            x = points[head, start:end]
            centres, half = _start(x, clusters), x[::2]
            total = torch.zeros_like(centres).index_add_(0, _nearest(half, centres), half)
            # a centre that no sampled point chose stays where it began
            centres = torch.where(total.any(1, keepdim=True), torch.nn.functional.normalize(total, dim=-1), centres)
            label[head, start:end] = _nearest(x, centres) + first
        first += clusters
    return label


def _start(x: Tensor, clusters: int) -> Tensor:
    """Every size-th point: neighbours in the text are alike, so this start is close to the end."""
    return x[torch.linspace(0, len(x) - 1, clusters, device=x.device).round().long()]


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Most similar centre of each point."""
    turned = centres.T.contiguous()
    return torch.cat([(block @ turned).argmax(1) for block in x.split(_ROWS)])


BUILDS = {"fast": fast, "naive": naive}
