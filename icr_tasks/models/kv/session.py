"""One batch going through a method: what the attention function does, and what it counts.

States: `prefill` (dense; remembers the last queries for evictors), then `decode` (readers: sparse; evictors: dense
over what was kept). Sequences are padded on the left; each is handled alone, so a batch gives what batch 1 gives.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import cache as caches
from .base import Method, Zone, mass

MASS_EVERY = 16  # decode steps between two exact (expensive, untimed) measurements of attention mass


@dataclass
class Tally:
    """Counts of one sequence, summed over layers."""

    prompt: int = 0
    kept: int = 0  # tokens stored after prefill
    fallback: bool = False  # too short: full attention
    steps: int = 0  # decode steps
    sparse_steps: int = 0
    bytes_read: int = 0
    tokens_read: float = 0.0
    index_bytes: int = 0
    build_seconds: float = 0.0
    masses: list[float] = field(default_factory=list)
    zones: list[Zone | None] = field(default_factory=list)


class Session:
    """State of one batch under one method; `method=None` is full attention and only counts."""

    def __init__(self, method: Method | None, pads: list[int], layers: int, tail: int = 0) -> None:
        """`tail`: last queries of the prompt to remember, whatever the method needs."""
        self.method, self.pads, self.layers = method, pads, layers
        self.tail = max(tail, 0 if method is None else method.needs_queries)
        self.tallies = [Tally() for _ in pads]
        self.decoding = False
        self.prefilled = 0  # tokens a row went through, when a press already thinned the cache
        self.alive = [True] * len(pads)
        self.untimed = 0.0  # seconds spent on measurements that production would not do
        self._scales = [1.0] * layers
        self._queries: list[Tensor | None] = [None] * layers
        self._step = 0

    # -- called by the attention function ------------------------------------------------------------------------

    def observe(self, layer: int, query: Tensor, scale: float) -> None:
        """Remember the last queries of the prompt: query (batch, heads, q, dim), after RoPE."""
        self._scales[layer] = scale
        if self.tail and not self.decoding:
            seen = self._queries[layer]
            tail = query[:, :, -self.tail :]
            self._queries[layer] = tail if seen is None else torch.cat([seen, tail], 2)[:, :, -self.tail :]

    def observed(self) -> tuple[list[Tensor], list[float]]:
        """What `observe` remembered: queries and scale of each layer."""
        return [q for q in self._queries if q is not None], self._scales

    def recall(self, queries: list[Tensor], scales: list[float]) -> None:
        """Take the place of a prefill that `observe` saw in another run."""
        self._queries, self._scales = list(queries), list(scales)

    @property
    def sparse(self) -> bool:
        """True when decode steps must go through `attend`."""
        return bool(self.decoding and self.method and not self.method.frees and not hasattr(self.method, "press"))

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """One decode step: query (batch, heads, 1, dim), keys and values of the whole cache -> (batch, 1, heads, dim)."""
        measure = self._step % MASS_EVERY == 0
        rows = [self._row(b, layer, query[b, :, 0], keys[b], values[b], scale, measure) for b in range(len(self.pads))]
        return torch.stack(rows).unsqueeze(1)

    def _row(
        self, b: int, layer: int, query: Tensor, keys: Tensor, values: Tensor, scale: float, measure: bool
    ) -> Tensor:
        pad, tally, method = self.pads[b], self.tallies[b], self.method
        assert method is not None
        keys, values = keys[:, pad:], values[:, pad:]
        grouped = query.view(keys.shape[0], -1, query.shape[-1])
        zone = tally.zones[layer]
        if zone is None:
            weights = torch.softmax((grouped @ keys.transpose(1, 2)).float() * scale, -1).to(values.dtype)
            self._count(b, keys.numel() * 2 * keys.element_size(), keys.shape[1])
            return (weights @ values).reshape(query.shape)
        start = time.perf_counter()
        if method.grow(zone, keys, values):
            tally.build_seconds += time.perf_counter() - start
        done = method.attend(grouped, keys, values, zone, scale, mark=measure)
        self._count(b, done.bytes_read, done.tokens_read)
        if done.seen is not None and self.alive[b]:
            start = time.perf_counter()
            tally.masses.append(mass(grouped, keys, done.seen, scale))
            self.untimed += time.perf_counter() - start
        return done.out.reshape(query.shape)

    def _count(self, b: int, bytes_read: int, tokens_read: float) -> None:
        if self.alive[b]:
            self.tallies[b].bytes_read += bytes_read
            self.tallies[b].tokens_read += tokens_read

    # -- called by the decoding loop -----------------------------------------------------------------------------

    def finish_prefill(self, cache: Any, room: int) -> list[int]:
        """Build indexes or evict; `room` more tokens will come. Returns the left padding of each row from now on."""
        width = cache.layers[0].keys.shape[2]
        for tally, pad in zip(self.tallies, self.pads, strict=True):
            tally.prompt = tally.kept = width - pad
            tally.fallback = self.method is not None and not self.method.applies(tally.prompt)
        if hasattr(self.method, "press"):
            for tally in self.tallies:  # kvpress has thinned the cache during the prefill
                tally.prompt, tally.fallback = self.prefilled, False
        elif self.method is not None and self.method.frees:
            self._evict(cache, room)
        elif self.method is not None:
            self._index(cache)
        self._queries = [None] * self.layers
        self.decoding = True
        return self.pads

    def _index(self, cache: Any) -> None:
        assert self.method is not None
        for b, tally in enumerate(self.tallies):
            if tally.fallback:
                tally.zones = [None] * self.layers
                continue
            start = time.perf_counter()
            for layer in cache.layers:
                zone = self.method.prepare(layer.keys[b, :, self.pads[b] :], layer.values[b, :, self.pads[b] :])
                tally.index_bytes += self.method.index_bytes(zone)
                tally.zones.append(zone)
            tally.build_seconds = time.perf_counter() - start

    def _evict(self, cache: Any, room: int) -> None:
        assert self.method is not None
        start = time.perf_counter()
        for number, layer in enumerate(cache.layers):
            rows = []
            for b, (tally, pad) in enumerate(zip(self.tallies, self.pads, strict=True)):
                keys, values = layer.keys[b, :, pad:], layer.values[b, :, pad:]
                if tally.fallback:
                    at = torch.arange(keys.shape[1], device=keys.device).expand(keys.shape[0], -1)
                else:
                    at = self.method.keep(keys, values, self._tail(number, b, keys.shape[0]), self._scales[number])
                tally.kept = at.shape[1]
                rows.append(at + pad)
            caches.gather(layer, rows, room)
        width = cache.layers[0].keys.shape[2]
        self.pads = [width - tally.kept for tally in self.tallies]
        for tally in self.tallies:
            tally.build_seconds = (time.perf_counter() - start) / len(self.tallies)

    def _tail(self, layer: int, b: int, kv_heads: int) -> Tensor | None:
        queries = self._queries[layer]
        if queries is None:
            return None
        row, need = queries[b], min(self.tallies[b].prompt, self.method.needs_queries if self.method else 0)
        return row.view(kv_heads, -1, *row.shape[1:])[:, :, row.shape[1] - need :]

    def step_done(self, cache: Any, tokens: int = 1) -> None:
        """After `tokens` decode steps (evictors take the question at once). Dense reading is counted here."""
        self._step += tokens
        for b, tally in enumerate(self.tallies):
            if not self.alive[b]:
                continue
            tally.steps += tokens
            tally.sparse_steps += tokens * (self.method is not None and not tally.fallback)
            if not self.sparse:
                for layer in cache.layers:
                    length = (layer.keys.shape[2] - self.pads[b]) * tokens - tokens * (tokens - 1) // 2
                    per_token = 2 * layer.keys.shape[1] * layer.keys.shape[3] * layer.keys.element_size()
                    self._count(b, length * per_token, length)
