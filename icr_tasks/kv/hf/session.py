"""One batch going through a method: what the attention function does, and what it counts.

States: `prefill` (dense; remembers the last queries for evictors), then `decode` (readers: sparse; evictors:
dense over what was kept). Sequences are padded on the left; each is handled alone, so a batch gives what
batch 1 gives.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..base import Method, Zone, mass
from . import cache as caches

# ---- report --------------------------------------------------------------------------------------
# Measurements of one item, beside the formula that predicts them. "Stores" and "reads" are different
# columns.


def report(
    session: Session, row: int, stored: int, cache: Any, timing: dict[str, float], peak: int
) -> dict[str, Any]:
    """The digest's `kv` field.

    Bytes are sums over layers of keys and values (and of the index where named). `tokens` is the length that
    was compressed; `steps` the decode steps after it (question tokens included in a query-agnostic run).
    `read_fraction` = bytes read / bytes full attention would have read in the same steps; `attended_fraction`
    = the same in tokens. Times are those of the whole batch.
    """
    tally, method = session.tallies[row], session.method
    layer = cache.layers[0]
    heads, dim, item = layer.keys.shape[1], layer.keys.shape[3], layer.keys.element_size()
    per_token = 2 * heads * dim * item * session.layers
    steps, n = tally.steps, tally.prompt
    later = per_token * (steps - 1) / 2  # each step reads one more generated token
    full_read = per_token * (n + 1) + later
    found: dict[str, Any] = {
        "method": "full" if method is None else method.name,
        "frees": bool(method and method.frees),
        "tokens": n,
        "tokens_stored": tally.kept,
        # also a prompt of which a budget keeps every token; a press that keeps everything is none
        "fallback": tally.fallback
        or bool(
            steps
            and method
            and not hasattr(method, "press")
            and not tally.sparse_steps
            and tally.whole == steps
        ),
        "steps": steps,
        "sparse_steps": tally.sparse_steps,
        "bytes_full_per_token": per_token,
        "bytes_stored_per_token": round(stored / n, 2),
        "stored_fraction": round(stored / (per_token * n), 6),
        "index_bytes": tally.index_bytes,
        "build_seconds": round(tally.build_seconds, 6),
        "bytes_read_per_step": round(tally.bytes_read / steps) if steps else None,
        "read_fraction": round(tally.bytes_read / (steps * full_read), 6) if steps else None,
        "attended_fraction": round(tally.tokens_read / (session.layers * steps * full_read / per_token), 6)
        if steps
        else None,
        "mass_kept": round(sum(tally.masses) / len(tally.masses), 6) if tally.masses else None,
        "peak_memory_bytes": peak,
        "prefill_tokens_per_s": round(sum(t.prompt for t in session.tallies) / timing["prefill"], 2),
        "decode_tokens_per_s": round(sum(t.steps for t in session.tallies) / timing["decode"], 2)
        if steps and timing["decode"]
        else None,
    }
    if method is not None and not tally.fallback:
        nominal = method.formula(n, heads, dim, item)
    else:
        each = 2 * heads * dim * item
        nominal = {"stored": each * n, "read": each * (n + 1), "index": 0}
    found["formula"] = {
        "bytes_stored_per_token": round(nominal["stored"] * session.layers / n, 2),
        "bytes_read_per_step": round(nominal["read"] * session.layers + later) if steps else None,
        "index_bytes": round(nominal["index"] * session.layers),
    }
    return found


# ---- memory --------------------------------------------------------------------------------------
# Peak memory of a stretch of work: GPU allocations, or this process's resident set on Linux.


def reset_peak(device: torch.device) -> None:
    """Start a new peak. On a system without /proc the peak stays that of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes(device: torch.device) -> int:
    """Peak bytes since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
    left_out: float = 0.0  # tokens not read in the step that is running, summed over layers
    read: float = 0.0  # tokens read in it
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
        self._masked = [0.0] * layers  # tokens a press hid in the step that is running, mean over heads
        self._step = 0

    # -- called by the attention function ------------------------------------------------------------------

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
        return bool(
            self.decoding and self.method and not self.method.frees and not hasattr(self.method, "press")
        )

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """One decode step: query (batch, heads, 1, dim), keys and values of the whole cache -> (batch, 1,
        heads, dim)."""
        measure = self._step % MASS_EVERY == 0
        rows = [
            self._row(b, layer, query[b, :, 0], keys[b], values[b], scale, measure)
            for b in range(len(self.pads))
        ]
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
            self._count(b, keys.numel() * 2 * keys.element_size(), keys.shape[1], keys.shape[1])
            return (weights @ values).reshape(query.shape)
        start = time.perf_counter()
        if method.grow(zone, keys, values):
            tally.build_seconds += time.perf_counter() - start
        done = method.attend(grouped, keys, values, zone, scale, mark=measure)
        self._count(b, done.bytes_read, done.tokens_read, keys.shape[1])
        if done.seen is not None and self.alive[b]:
            start = time.perf_counter()
            tally.masses.append(mass(grouped, keys, done.seen, scale))
            self.untimed += time.perf_counter() - start
        return done.out.reshape(query.shape)

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

        query (1, heads, 1, dim), keys (1, kv_heads, tokens, dim).
        """
        if not self.decoding or query.shape[2] != 1:
            return
        start = time.perf_counter()
        grouped = query[0, :, 0].view(keys.shape[1], -1, query.shape[-1]).float()
        recent = grouped @ keys[0, :, -_RECENT:].transpose(1, 2).float()
        _, heads, at = places
        hidden = (grouped[heads] * keys[0, heads, at].unsqueeze(1).float()).sum(-1)  # (places, group)
        gone = ((hidden - recent.amax(-1)[heads]) * scale < _NO_WEIGHT).all(-1)
        self._masked[layer] = float(gone.sum()) / keys.shape[1]
        self.untimed += time.perf_counter() - start

    # -- called by the decoding loop -----------------------------------------------------------------------

    def finish_prefill(self, cache: Any, room: int) -> list[int]:
        """Build indexes or evict; `room` more tokens will come. Returns the left padding of each row from now
        on."""
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
                zone = self.method.prepare(
                    layer.keys[b, :, self.pads[b] :], layer.values[b, :, self.pads[b] :]
                )
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
                    at = self.method.keep(
                        keys, values, self._tail(number, b, keys.shape[0]), self._scales[number]
                    )
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
        """After `tokens` decode steps (evictors take the question at once). Dense reading is counted here; a
        step is sparse when fewer keys were read than the sequence has tokens, whatever the method meant to
        do."""
        self._step += tokens
        for b, tally in enumerate(self.tallies):
            if not self.alive[b]:
                continue
            tally.steps += tokens
            if not self.sparse:
                earlier = tokens * (tokens - 1) // 2
                for number, layer in enumerate(cache.layers):
                    length = (layer.keys.shape[2] - self.pads[b]) * tokens - earlier
                    whole = (tally.prompt + tally.steps) * tokens - earlier
                    per_token = 2 * layer.keys.shape[1] * layer.keys.shape[3] * layer.keys.element_size()
                    self._count(b, length * per_token, length - self._masked[number] * tokens, whole)
            tally.sparse_steps += tokens * (tally.left_out > 0)
            tally.whole += tokens * (tally.read > 0 and tally.left_out == 0)
            tally.left_out = tally.read = 0.0
        self._masked = [0.0] * self.layers


# ---- attention -----------------------------------------------------------------------------------
# The attention function transformers calls: dense through its own sdpa, or the active session's sparse step.

NAME = "icr_kv"
# The session whose block this thread is in; nothing outlives the block.
_ACTIVE: ContextVar[Session | None] = ContextVar("icr_kv_session", default=None)


@contextmanager
def active(session: Session) -> Iterator[Session]:
    """Attention of this thread goes through `session` inside the block."""
    before = _ACTIVE.set(session)
    try:
        yield session
    finally:
        _ACTIVE.reset(before)


def forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature: query (batch, heads, q, dim), key/value (batch, kv_heads, tokens,
    dim)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    session = _ACTIVE.get()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if session is not None and session.sparse and query.shape[2] == 1:
        return session.attend(module.layer_idx, query, key, value, scale), None
    if session is not None and not session.decoding:
        session.observe(module.layer_idx, query, scale)
    hidden = getattr(module, "masked_key_indices", None)  # kvpress's name, on the layers of a masking press
    if session is not None and hidden is not None:
        session.mask(module.layer_idx, query, key, hidden, scale)
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )


def register() -> str:
    """Make the function known to transformers; returns its name. Safe to call often."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
