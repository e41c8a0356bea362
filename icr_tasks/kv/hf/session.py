"""One batch going through a method: what the attention function does, and what it counts.

States: `prefill` (dense; remembers the last queries for evictors), then `decode` (readers: sparse; evictors: dense
over what was kept). Sequences are padded on the left; each is handled alone, so a batch gives what batch 1 gives.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..base import Method, Observed, Zone, mass, merge
from ..evict import divide
from ..kivi import Kivi
from ..prefill import SparsePrefill
from . import cache as caches
from .coded import CodedLayer
from .moments import Moments

_RECENT = 64  # newest keys, which no press hides: what a hidden key's score is held against
_NO_WEIGHT = -30.0  # e^-30 of a recent key's weight is no weight in any dtype
MASS_EVERY = 16  # decode steps between two exact (expensive, untimed) measurements of attention mass


@dataclass
class Tally:
    """Counts of one sequence, summed over layers."""

    prompt: int = 0
    kept: int = 0  # tokens stored after prefill
    fallback: bool = False  # too short: full attention
    steps: int = 0  # decode steps
    sparse_steps: int = 0  # those in which keys were seen to be left out
    whole: int = 0  # those in which every key was seen to be read
    bytes_read: int = 0
    tokens_read: float = 0.0
    index_bytes: int = 0
    build_seconds: float = 0.0
    masses: list[float] = field(default_factory=list)
    coded: bool = False  # some keys or values are stored in fewer bits
    since: int = 0  # tokens since the last compression
    compressions: int = 0  # those while decoding
    left_out: float = 0.0  # tokens not read in the step that is running, summed over layers
    read: float = 0.0  # tokens read in it
    zones: list[Zone | None] = field(default_factory=list)


class Session:
    """State of one batch under one method; `method=None` is full attention and only counts."""

    def __init__(
        self, method: Method | None, pads: list[int], where: int | Sequence[int], tail: int = 0
    ) -> None:
        """`where`: the full-attention layers, or how many; `tail`: last queries of the prompt to remember."""
        self.where = tuple(range(where)) if isinstance(where, int) else tuple(where)
        self.method, self.pads, self.layers = method, pads, len(self.where)
        self._slots = {layer: slot for slot, layer in enumerate(self.where)}
        self.ragged = False  # heads have lengths of their own
        self.every = 0 if method is None or getattr(method, "whole", False) else getattr(method, "every", 0)
        self.tail = max(tail, 0 if method is None else method.needs_queries)
        self.tallies = [Tally() for _ in pads]
        self.decoding = False
        self.prefilled = 0  # tokens a row went through, when a press already thinned the cache
        self.alive = [True] * len(pads)
        self.untimed = 0.0  # seconds spent on measurements that production would not do
        self.cache: Any = None
        self.moments: Moments | None = None  # of the queries, where the method wants them
        self.repeated: list[Tensor] = []  # a layer: scores of a repetition of the prompt, (kv_heads, tokens)
        self.repeating: tuple[int, int] | None = None  # the part of the prompt that is being repeated
        self.prefill: SparsePrefill | None = None  # None: dense
        self._scales = [1.0] * self.layers
        self._queries: list[Tensor | None] = [None] * self.layers
        self._masked = [0.0] * self.layers  # tokens a press hid in the step that is running, mean over heads
        self.room = 0  # tokens that will come after the prefill

    # -- called by the attention function ------------------------------------------------------------------

    def slot(self, layer: int) -> int | None:
        """Place of a model's layer among those that are compressed and counted; None for any other layer."""
        return self._slots.get(layer)

    def observe(self, layer: int, query: Tensor, scale: float) -> None:
        """Remember the last queries: query (batch, heads, q, dim), after RoPE. Those of generated tokens only where the
        cache is compressed again."""
        self._scales[layer] = scale
        if self.moments is not None and not self.decoding:
            self.moments.add(layer, query, self.pads)
        if self.tail and (self.every or not self.decoding):
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
        return bool(
            self.decoding and self.method and not self.method.frees and not hasattr(self.method, "press")
        )

    def attend(
        self,
        layer: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scale: float,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """One decode step: query (batch, heads, q, dim), keys and values of the whole cache (ragged: of the new tokens)
        -> (batch, q, heads, dim). Readers take one query at a time."""
        if self.ragged:
            return torch.stack(
                [self._ragged(b, layer, query[b], scale, sinks) for b in range(len(self.pads))]
            )
        rows = [
            self._row(b, layer, query[b, :, 0], keys[b], values[b], scale, sinks)
            for b in range(len(self.pads))
        ]
        return torch.stack(rows).unsqueeze(1)

    def _row(
        self,
        b: int,
        layer: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scale: float,
        sinks: Tensor | None,
    ) -> Tensor:
        pad, tally, method = self.pads[b], self.tallies[b], self.method
        assert method is not None
        keys, values = keys[:, pad:], values[:, pad:]
        grouped = query.view(keys.shape[0], -1, query.shape[-1])
        sinks = None if sinks is None else sinks.view(keys.shape[0], -1)
        zone = tally.zones[layer]
        if zone is None:
            out = merge((grouped.float() @ keys.float().transpose(1, 2)) * scale, values, None, sinks)
            self._count(
                b, (keys.numel() + values.numel()) * keys.element_size(), keys.shape[1], keys.shape[1]
            )
            return out.reshape(query.shape[0], -1).to(query.dtype)
        start = time.perf_counter()
        if method.grow(zone, keys, values):
            tally.build_seconds += time.perf_counter() - start
        measure = (
            tally.steps % MASS_EVERY == 0
        )  # the row's own steps, so that a batch measures what each does alone
        done = method.attend(grouped, keys, values, zone, scale, mark=measure, sinks=sinks)
        self._count(b, done.bytes_read, done.tokens_read, keys.shape[1])
        if done.seen is not None and self.alive[b]:
            start = time.perf_counter()
            tally.masses.append(mass(grouped, keys, done.seen, scale))
            self.untimed += time.perf_counter() - start
        return done.out.reshape(query.shape[0], -1)

    def _ragged(self, b: int, layer: int, query: Tensor, scale: float, sinks: Tensor | None) -> Tensor:
        """Dense attention over what each head kept: query (heads, q, dim) -> (q, heads, dim)."""
        heads, parts = self.cache.layers[self.where[layer]].heads[b], []
        grouped = query.view(len(heads), -1, *query.shape[1:])
        for h, (keys, values) in enumerate(heads):
            scores = (grouped[h].float() @ keys.float().T) * scale  # (group, q, tokens)
            if (q := scores.shape[1]) > 1:
                future = torch.ones(scores.shape[1:], dtype=torch.bool, device=keys.device)
                scores = scores.masked_fill(future.triu(keys.shape[0] - q + 1), -torch.inf)
            mine = None if sinks is None else sinks.view(len(heads), -1, 1)[h].expand(-1, q)
            parts.append(merge(scores, values, None, mine))
        return torch.cat(parts).transpose(0, 1).to(query.dtype)

    def _count(self, b: int, bytes_read: int, tokens_read: float, tokens: float) -> None:
        """One layer read `tokens_read` of the `tokens` that full attention would have read."""
        if self.alive[b]:
            tally = self.tallies[b]
            tally.bytes_read += bytes_read
            tally.tokens_read += tokens_read
            tally.read += tokens_read
            tally.left_out += tokens - tokens_read

    def mask(self, layer: int, query: Tensor, keys: Tensor, places: Any, scale: float) -> None:
        """A press wants keys hidden at `places` (batch, head, position: index tensors of one sequence):
        counts those that really get no weight from any query of their group, because the press has
        overwritten them.

        query (1, heads, q, dim), of which the last is looked at; keys (1, kv_heads, tokens, dim).
        """
        if not self.decoding:
            return
        start = time.perf_counter()
        grouped = query[0, :, -1].view(keys.shape[1], -1, query.shape[-1]).float()
        recent = grouped @ keys[0, :, -_RECENT:].transpose(1, 2).float()
        _, heads, at = places
        hidden = (grouped[heads] * keys[0, heads, at].unsqueeze(1).float()).sum(-1)  # (places, group)
        gone = ((hidden - recent.amax(-1)[heads]) * scale < _NO_WEIGHT).all(-1)
        self._masked[layer] = float(gone.sum()) / keys.shape[1]
        self.untimed += time.perf_counter() - start

    # -- called by the decoding loop -----------------------------------------------------------------------

    def finish_prefill(self, cache: Any, room: int) -> list[int]:
        """Build indexes or evict; `room` more tokens will come. Returns each row's left padding from now on."""
        self.cache, self.room = cache, room
        width = cache.layers[self.where[0]].keys.shape[2] if self.where else self.prefilled
        for tally, pad in zip(self.tallies, self.pads, strict=True):
            tally.prompt = tally.kept = width - pad
            tally.fallback = self.method is not None and not self.method.applies(tally.prompt)
        if hasattr(self.method, "press"):
            for tally in self.tallies:  # kvpress has thinned the cache during the prefill
                tally.prompt, tally.fallback = self.prefilled, False
        elif isinstance(self.method, Kivi):
            self._code(self.method)
        elif self.method is not None and self.method.frees:
            start = time.perf_counter()
            self._evict([None if t.fallback else self.method.n_kept(t.prompt) for t in self.tallies])
            for tally in self.tallies:
                tally.build_seconds = (time.perf_counter() - start) / len(self.tallies)
                tally.compressions = 0
        elif self.method is not None:
            self._index(cache)
        if not self.every:
            self._queries = [None] * self.layers
        self.moments, self.repeated = None, []
        self.decoding = True
        return self.pads

    def _code(self, method: Kivi) -> None:
        start = time.perf_counter()
        for place in self.where:
            self.cache.layers[place] = CodedLayer(self.cache.layers[place], self.pads, method)
        for tally in self.tallies:
            tally.build_seconds = (time.perf_counter() - start) / len(self.tallies)

    def _index(self, cache: Any) -> None:
        assert self.method is not None
        for b, tally in enumerate(self.tallies):
            if tally.fallback:
                tally.zones = [None] * self.layers
                continue
            start = time.perf_counter()
            for slot, layer in enumerate(cache.layers[i] for i in self.where):
                if slot < self.method.dense:
                    tally.zones.append(None)
                    continue
                zone = self.method.prepare(
                    layer.keys[b, :, self.pads[b] :], layer.values[b, :, self.pads[b] :]
                )
                tally.index_bytes += self.method.index_bytes(zone)
                tally.zones.append(zone)
            tally.build_seconds = time.perf_counter() - start

    def _evict(self, kept: list[int | None]) -> None:
        """Bring each row to `kept` tokens a head (on average); None: the row stays as it is."""
        method: Any = self.method
        before = self.cache.layers[self.where[0]].get_seq_length()
        lengths = [before - pad for pad in self.pads]  # of an answer that has ended, more than its tally says
        self.ragged = self.ragged or bool(getattr(method, "own_lengths", False))
        across = [
            self._across(b, n) if getattr(method, "across", False) else None for b, n in enumerate(kept)
        ]
        for slot, place in enumerate(self.where):
            layer = self.cache.layers[place]
            rows = [
                self._chosen(slot, b, layer, n) if (found := across[b]) is None else found[slot]
                for b, n in enumerate(kept)
            ]
            if self.ragged:
                split = [
                    [self._head(layer, b, h, at) for h, at in enumerate(row)] for b, row in enumerate(rows)
                ]
                self.cache.layers[place] = caches.RaggedLayer(split, layer)
            else:
                whole = [torch.stack(tuple(row)) for row in rows]
                caches.gather(layer, [at + pad for at, pad in zip(whole, self.pads, strict=True)], self.room)
        width = self.cache.layers[self.where[0]].get_seq_length()
        for b, (tally, n) in enumerate(zip(self.tallies, kept, strict=True)):
            if n is not None:
                tally.kept, tally.since, tally.compressions = n, 0, tally.compressions + 1
            self.pads[b] = 0 if self.ragged else width - (lengths[b] if n is None else n)

    def _head(self, layer: Any, b: int, h: int, at: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self._parts(layer, b)
        if len(at) == len(keys[h]):
            return keys[h], values[h]
        return keys[h][at], values[h][at]

    def _parts(self, layer: Any, b: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Keys and values of a row, one (tokens, dim) a head."""
        if isinstance(layer, caches.RaggedLayer):
            return [k for k, _ in layer.heads[b]], [v for _, v in layer.heads[b]]
        return layer.keys[b, :, self.pads[b] :], layer.values[b, :, self.pads[b] :]

    def _chosen(self, slot: int, b: int, layer: Any, kept: int | None) -> Sequence[Tensor]:
        """Positions that stay, one tensor a head."""
        method: Any = self.method
        keys, values = self._parts(layer, b)
        if kept is None:
            return [torch.arange(one.shape[0], device=one.device) for one in keys]
        queries = self._tail(slot, b, len(keys))
        method = method.at(self._observed(slot, b, len(keys)))
        if not self.decoding and not self.ragged:
            return method.keep(keys, values, queries, self._scales[slot])
        return method.keep_each(keys, values, queries, self._scales[slot], kept)

    def _across(self, b: int, kept: int | None) -> list[list[Tensor]] | None:
        """Positions that stay in each layer and head, where all layers share a budget; None for a row as it is."""
        method: Any = self.method
        if kept is None:
            return None
        scores: list[Tensor] = []
        for slot, place in enumerate(self.where):
            keys, values = self._parts(self.cache.layers[place], b)
            own = method.at(self._observed(slot, b, len(keys)))
            scores += own.score_each(keys, values, self._tail(slot, b, len(keys)), self._scales[slot])
        found = divide(scores, kept, method.floor, method.sink, method.window)
        each = len(found) // self.layers
        return [found[i * each : (i + 1) * each] for i in range(self.layers)]

    def _observed(self, slot: int, b: int, heads: int) -> Observed:
        seen = Observed(slot, self.layers, heads)
        if self.moments is not None:
            seen.mean, seen.cov, seen.average = self.moments.of(slot, b)
        if self.repeated:
            seen.repeated = self.repeated[slot]
        return seen

    def _tail(self, layer: int, b: int, kv_heads: int) -> Tensor | None:
        queries = self._queries[layer]
        if queries is None:
            return None
        tally, row = self.tallies[b], queries[b]
        need = min(tally.prompt + tally.steps, self.method.needs_queries if self.method else 0)
        return row.view(kv_heads, -1, *row.shape[1:])[:, :, row.shape[1] - need :]

    def step_done(self, cache: Any, tokens: int = 1) -> bool:
        """After `tokens` decode steps (evictors take the question at once). Dense reading is counted here; a
        step is sparse when fewer keys were read than the sequence has tokens, whatever the method meant to
        do. True when the cache was compressed again: padding and mask have changed."""
        for b, tally in enumerate(self.tallies):
            if not self.alive[b]:
                continue
            tally.steps += tokens
            tally.since += tokens
            if not self.sparse:
                self._count_dense(b, tokens)
            less = tally.left_out > 0 or tally.coded
            tally.sparse_steps += tokens * less
            tally.whole += tokens * (tally.read > 0 and not less)
            tally.left_out = tally.read = 0.0
        self._masked = [0.0] * self.layers
        return bool(self.every) and self._again()

    def _count_dense(self, b: int, tokens: int) -> None:
        """What the last `tokens` steps read of everything that is stored."""
        tally, earlier = self.tallies[b], tokens * (tokens - 1) // 2
        for number, layer in enumerate(self.cache.layers[i] for i in self.where):
            whole = (tally.prompt + tally.steps) * tokens - earlier
            if isinstance(layer, CodedLayer):
                row = layer.rows[b]
                tally.coded = tally.coded or row.coded_values is not None or row.coded_keys is not None
                self._count(b, row.size() * tokens, whole, whole)
                continue
            now = layer.tokens(b) if self.ragged else layer.keys.shape[2] - self.pads[b]
            length = now * tokens - earlier
            item = layer.keys.element_size()
            per_token = layer.keys.shape[1] * (layer.keys.shape[3] + layer.values.shape[3]) * item
            self._count(b, round(length * per_token), length - self._masked[number] * tokens, whole)

    def _again(self) -> bool:
        """Compress rows whose `every` generated tokens are there, to what they had after the prefill (a budget in
        tokens: to that many, also a prompt that was shorter)."""
        method: Any = self.method
        kept: list[int | None] = []
        for tally in self.tallies:
            size = method.budget if isinstance(method.budget, int) else method.n_kept(tally.prompt)
            whole = tally.fallback and not tally.compressions  # a short prompt is still there in full
            now = tally.prompt + tally.steps if whole else tally.kept + tally.since
            due = (
                tally.since >= self.every and now > size and not (whole and isinstance(method.budget, float))
            )
            kept.append(size if due else None)
        if not any(n is not None for n in kept):
            return False
        start = time.perf_counter()
        self._evict(kept)
        spent = (time.perf_counter() - start) / len(self.tallies)
        for tally, n in zip(self.tallies, kept, strict=True):
            tally.build_seconds += spent if n is not None else 0
        return True
