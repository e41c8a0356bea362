"""What every KV method is: functions of one sequence's keys and values in one layer, (kv_heads, tokens, dim)
each.

Two families. *Readers* keep everything and attend to a part at each decode step: `build` an index after
prefill,
`select` positions for a query. *Evictors* drop keys and values once, after prefill: `keep` positions.
Queries are grouped by KV head: (kv_heads, group, dim). All heads of a group share one list (RetroInfer,
`sparse_attention`), because they share the keys that are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import IcrError
from ..lazy import torch
from . import rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Picked:
    """Positions to read, (kv_heads, m) int64, from the indexed zone; `valid` marks real entries (None: all), of which
    there are `real` (None: counted when needed). With `run` above 1 they are numbers of runs of so many tokens.

    `estimate` is the part of the softmax that is approximated instead of read: (log-weights (kv_heads, group,
    c), value sums (kv_heads, c, dim), sizes (kv_heads, c)). `index_bytes` counts what ranking the zone read.
    """

    positions: Tensor
    valid: Tensor | None = None
    estimate: tuple[Tensor, Tensor, Tensor] | None = None
    index_bytes: int = 0
    real: int | None = None
    run: int = 1

    @property
    def tokens(self) -> Tensor:
        """Positions of tokens, (kv_heads, m * run)."""
        if self.run == 1:
            return self.positions
        inside = torch.arange(self.run, device=self.positions.device)
        return (self.positions.unsqueeze(-1) * self.run + inside).flatten(1)

    @property
    def entries(self) -> int:
        """Tokens picked over all heads."""
        if self.valid is None:
            return self.positions.numel() * self.run
        return int(self.valid.sum()) if self.real is None else self.real


@dataclass
class Zone:
    """Bounds of the indexed zone [start, end) and the index over it; tokens outside are always read."""

    start: int
    end: int
    index: Any = None
    retrieve: int = 0


@dataclass
class Observed:
    """What a prefill showed of one layer beside its keys and values, for methods that ask for it."""

    layer: int  # place among the full-attention layers, of `layers`
    layers: int
    heads: int  # KV heads
    mean: Tensor | None = None  # (heads, dim) of the queries before their rotary positions
    cov: Tensor | None = None  # (heads, dim, dim)
    average: Callable[[int], Tensor] | None = (
        None  # rotation averaged over the next positions, (dim, dim), x @ it
    )
    repeated: Tensor | None = None  # (kv_heads, tokens): most attention from a repetition of the prompt


@dataclass
class Attended:
    """One step: output (kv_heads, group, dim), what was read, and which tokens (bool (kv_heads, tokens) on
    request)."""

    out: Tensor
    bytes_read: int
    tokens_read: float
    seen: Tensor | None = None


class Method:
    """Base of all methods. Subclasses set the knobs they have as attributes through the constructor."""

    sink = 0
    window = 0
    update = 1024
    dense = 0  # first layers that are left as they are
    needs_queries = 0  # how many of the last prefill queries `keep` wants to see
    moments = False  # whether it wants the mean and covariance of the queries before their rotary positions
    repeats = False  # whether it wants the prompt repeated
    together = False  # whether the KV heads of a layer are scored together

    def __init__(self, *, name: str, budget: int | float | None, frees: bool, **knobs: Any) -> None:
        self.name, self.budget, self.frees = name, budget, frees
        for knob, value in knobs.items():
            setattr(self, knob, value)

    def share(self, n: int) -> int:
        """What the budget means for n tokens: a share of them (float), a number of tokens (int), or all
        (None)."""
        if self.budget is None:
            return n
        return min(self.budget, n) if isinstance(self.budget, int) else round(self.budget * n)

    @property
    def whole(self) -> bool:
        """True for a budget of everything, which the identity checks run."""
        return isinstance(self.budget, float) and self.budget == 1

    def at(self, seen: Observed) -> Any:
        """This method at one layer, given what the prefill showed of it; itself where that is no matter."""
        return self

    def fits(self, layers: int, heads: int) -> None:
        """Raises IcrError where the method cannot run on so many full-attention layers of so many KV heads."""
        if self.dense >= layers:
            raise IcrError(
                f"kv:{self.name}: dense={self.dense} leaves every one of this model's {layers} full-attention layers as it "
                "is; give fewer"
            )

    def ask(self, after: int) -> None:
        """Raises IcrError where `after` question tokens cannot follow the compression."""

    # -- evictors ------------------------------------------------------------------------------------------

    def n_kept(self, n: int) -> int:
        """Tokens an evictor keeps of a prompt of n."""
        return self.share(n)

    def keep(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """Positions to keep, (kv_heads, kept) ascending. `queries`: the last ones, (kv_heads, group, q,
        dim)."""
        raise IcrError(f"kv:{self.name} keeps everything")

    # -- readers -------------------------------------------------------------------------------------------

    def applies(self, n: int) -> bool:
        """False when a prompt of n tokens is read in full because there is nothing to leave out."""
        return n > self.sink + self.window

    def zone(self, n: int) -> Zone:
        """The indexed zone of a prompt of n tokens, without its index."""
        return Zone(self.sink, max(n - self.window, self.sink))

    def build(self, keys: Tensor, values: Tensor) -> Any:
        """Index of the zone's keys and values (kv_heads, m, dim); None when the method needs none."""
        return None

    def extend(self, zone: Zone, keys: Tensor, values: Tensor) -> Any:
        """The index after the zone grew to zone.start:zone.end; rebuilt unless a method can append."""
        return self.build(keys[:, zone.start : zone.end], values[:, zone.start : zone.end])

    def select(self, query: Tensor, keys: Tensor, zone: Zone, scale: float) -> Picked | None:
        """Positions of the zone to read for this query (relative to zone.start); None: nothing of it. `keys`:
        all."""
        return None

    def prepare(self, keys: Tensor, values: Tensor) -> Zone:
        """Zone with its index, after prefill."""
        zone = self.zone(keys.shape[1])
        zone.index = self.build(keys[:, zone.start : zone.end], values[:, zone.start : zone.end])
        return zone

    def end(self, zone: Zone, n: int) -> int:
        """Where the zone ends once the sequence has n tokens: those that left the window enter `update` at a
        time."""
        return zone.end + max(0, (n - zone.end - self.window) // self.update) * self.update

    def grow(self, zone: Zone, keys: Tensor, values: Tensor) -> bool:
        """Move tokens that left the window into the zone. True when the index changed."""
        end = self.end(zone, keys.shape[1])
        if end == zone.end:
            return False
        zone.end = end
        zone.index = self.extend(zone, keys, values)
        return True

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        zone: Zone,
        scale: float,
        *,
        mark: bool = False,
        sinks: Tensor | None = None,
    ) -> Attended:
        """Softmax attention over sink + window + what `select` picks (+ its estimate). query: (kv_heads,
        group, dim). `sinks`: logits (kv_heads, group) that take weight and give no value (gpt-oss)."""
        heads, _, dim = query.shape
        pair = (dim + values.shape[2]) * keys.element_size()  # a key and its value
        picked = self.select(query, keys, zone, scale) if zone.end > zone.start else None
        if sinks is None and values.dtype == query.dtype == torch.float32 and query.device.type == "cpu":
            out = rows.attention(query, keys, values, zone, picked, scale)
        else:
            out = self._joined(query, keys, values, zone, picked, scale, sinks)
        n_read = keys.shape[1] - zone.end + zone.start + (picked.entries / heads if picked else 0.0)
        done = Attended(out, int(round(n_read * heads)) * pair, n_read)
        done.bytes_read += picked.index_bytes if picked else 0
        if mark:
            done.seen = self._seen(keys, zone, picked)
        return done

    @staticmethod
    def _joined(
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        zone: Zone,
        picked: Picked | None,
        scale: float,
        sinks: Tensor | None,
    ) -> Tensor:
        """`attend` on any device, in 16 bits, and with sinks."""
        at = None if picked is None else picked.tokens
        near_k, near_v = _near(keys, zone, at), _near(values, zone, at)
        scores = products(query.float(), near_k.float()) * scale  # 16 bits would round
        if picked is not None and at is not None and picked.valid is not None:
            hide = ~picked.valid.unsqueeze(1)
            scores[:, :, zone.start : zone.start + at.shape[1]].masked_fill_(hide, -torch.inf)
        return merge(scores, near_v, picked.estimate if picked else None, sinks).to(query.dtype)

    @staticmethod
    def _seen(keys: Tensor, zone: Zone, picked: Picked | None) -> Tensor:
        seen = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
        seen[:, zone.start : zone.end] = False
        if picked is not None:
            at = picked.tokens
            valid = torch.ones_like(at, dtype=torch.bool) if picked.valid is None else picked.valid
            for head in range(keys.shape[0]):
                seen[head, at[head][valid[head]] + zone.start] = True
        return seen

    # -- accounting ----------------------------------------------------------------------------------------

    def index_bytes(self, zone: Zone) -> int:
        """Bytes of the index tensors."""
        return 0

    def formula(self, n: int, heads: int, dim: int, item: int) -> dict[str, float]:
        """Nominal bytes of one layer at n prompt tokens, first decode step: stored, read, index.

        `item` is bytes per number. Full attention stores and reads 2 * heads * dim * item * n.
        """
        per_token = 2 * heads * dim * item
        if self.frees:
            return {
                "stored": per_token * self.n_kept(n),
                "read": per_token * (self.n_kept(n) + 1),
                "index": 0,
            }
        return {"stored": per_token * n, "read": per_token * (n + 1), "index": 0}


def _near(x: Tensor, zone: Zone, positions: Tensor | None) -> Tensor:
    """What is read of x (kv_heads, n, dim): before the zone, at positions (kv_heads, m) of it, after it. One buffer,
    written once: joining copies would take as long as the gathering."""
    if positions is None or x.device.type != "cpu":
        middle = [] if positions is None else [take(x[:, zone.start : zone.end], positions)]
        return torch.cat([x[:, : zone.start], *middle, x[:, zone.end :]], 1)
    start, m = zone.start, positions.shape[1]
    out = x.new_empty(x.shape[0], start + m + x.shape[1] - zone.end, x.shape[2])
    out[:, :start] = x[:, :start]
    out[:, start + m :] = x[:, zone.end :]
    for head in range(x.shape[0]):
        place = out[head, start : start + m]
        torch.index_select(x[head, start : zone.end], 0, positions[head], out=place)
    return out


def take(x: Tensor, positions: Tensor) -> Tensor:
    """Rows of x (kv_heads, n, dim) at positions (kv_heads, m)."""
    if x.device.type != "cpu":
        return x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    return rows.take(x, positions)


def merge(
    scores: Tensor,
    values: Tensor,
    estimate: tuple[Tensor, Tensor, Tensor] | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Softmax over exact scores (kv_heads, group, n), estimated clusters and sinks together: (kv_heads, group, dim).

    A cluster adds exp(q.c) * size to the denominator and exp(q.c) * sum of its values to the numerator
    (RetroInfer, `weighted_flash_decoding`); a sink (kv_heads, group) adds to the denominator alone.
    """
    if estimate is None and sinks is None:
        return torch.softmax(scores, -1).to(values.dtype) @ values
    top = scores.amax(-1, keepdim=True)
    if estimate is not None:
        top = torch.maximum(top, estimate[0].amax(-1, keepdim=True))
    if sinks is not None:
        top = torch.maximum(top, sinks.unsqueeze(-1).float())
    exact = (scores - top).exp()
    below, out = exact.sum(-1, keepdim=True), exact.to(values.dtype) @ values
    if estimate is not None:
        weights, sums, sizes = estimate
        rough = (weights - top).exp()
        below = below + (rough * sizes.unsqueeze(1)).sum(-1, keepdim=True)
        out = out + (rough.to(sums.dtype) @ sums).to(values.dtype)
    if sinks is not None:
        below = below + (sinks.unsqueeze(-1).float() - top).exp()
    return out / below.to(values.dtype)


def products(query: Tensor, keys: Tensor | rows.Blocks) -> Tensor:
    """Every row of query (kv_heads, group, dim) with every row of keys (kv_heads, n, dim): (kv_heads, group, n). On a CPU
    the few queries stand on the right, which reads the keys 1.4 times faster with AVX2 (0.8 with AVX-512), unless they lie
    in blocks."""
    if isinstance(keys, rows.Blocks):
        return keys.products(query)
    if query.device.type != "cpu":
        return query @ keys.transpose(1, 2)
    return (keys @ query.transpose(1, 2)).transpose(1, 2).contiguous()


def laid_out(x: Tensor) -> Tensor | rows.Blocks:
    """The part of an index, (kv_heads, n, dim), that every query is multiplied with: on a CPU in float32 in blocks."""
    return rows.Blocks(x) if x.device.type == "cpu" and x.dtype == torch.float32 else x


def plain(x: Tensor | rows.Blocks) -> Tensor:
    """What `laid_out` was given."""
    return x.plain() if isinstance(x, rows.Blocks) else x


def size_of(x: Tensor | rows.Blocks) -> int:
    """Bytes of it."""
    return x.bytes if isinstance(x, rows.Blocks) else x.numel() * x.element_size()


def rank(logits: Tensor) -> Tensor:
    """One score per entry for a KV head: softmax over entries, summed over its query heads. (kv, group, c) ->
    (kv, c)."""
    return torch.softmax(logits.float(), -1).sum(1)


def mass(query: Tensor, keys: Tensor, seen: Tensor, scale: float) -> float:
    """Share of the exact attention to keys that falls on the tokens read, mean over query heads."""
    exact = torch.softmax((query.float() @ keys.float().transpose(1, 2)) * scale, -1)
    return float((exact * seen.unsqueeze(1)).sum(-1).mean())
