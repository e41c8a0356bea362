"""What evictors share: a score a key, what stays for a budget, budgets that heads divide among themselves, and
compression while decoding.

`every=N`: each N generated tokens the cache is brought back to the size it had after the prefill (for a budget in tokens:
to that budget), as kvpress's DecodingPress does; 0 leaves generated tokens alone. `adaptive`: the heads of a layer share
its budget by their scores, each with at least `floor` of an equal share (AdaKV, arXiv 2407.11550, whose released
`floor_alpha` is 0.2); heads then keep different numbers of keys and are stored at their own lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import IcrError
from ..lazy import torch
from ..params import Flag, Number, Param, Whole
from .base import Method

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 0.2
# Knobs that every evictor may declare; recorded only where they differ from these defaults.
EVICTOR: dict[str, Param] = {
    "every": Whole(0, text="generated tokens between two compressions while decoding; 0: none"),
    "adaptive": Flag(False, "the heads of a layer divide its budget by their scores"),
    "floor": Number(FLOOR, "of an equal share that each head has under adaptive", low=0, high=1),
}
QUIET = tuple(EVICTOR)


def check_floor(name: str, differ: dict[str, object]) -> None:
    """Raises IcrError for a floor that nothing reads."""
    if "floor" in differ and not differ.get("adaptive"):
        raise IcrError(f"kv:{name}: floor= does nothing without adaptive; add adaptive, or leave floor out")


class Evictor(Method):
    """Base of methods that drop keys: a subclass gives `score`, or `keep` where it is no matter of scores."""

    every = 0
    adaptive = False
    across = False  # whether the heads of all layers share a budget
    floor = FLOOR

    @property
    def grows(self) -> float:
        """Share of the cache that grows with every generated token: all of it, or nothing where it rolls."""
        return 0.0 if self.every == 1 else 1.0

    @property
    def own_lengths(self) -> bool:
        """Whether heads keep different numbers of keys."""
        return self.adaptive

    @classmethod
    def check_together(cls, differ: dict[str, object]) -> None:
        """Raises IcrError for knobs that mean nothing together."""
        check_floor(getattr(cls, "name", cls.__name__.lower()), differ)

    def applies(self, n: int) -> bool:
        """The one rule of short prompts: one of which the budget drops nothing, or cannot hold sink and window, is
        read in full and counted. Budget 1 still runs (the identity check)."""
        return n > 1 and (self.whole or self.sink + self.window <= self.n_kept(n) < n) and self.n_kept(n) > 0

    def score(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """What each key is worth, (kv_heads, tokens) float32; sink and window are kept whatever it says."""
        raise IcrError(
            f"kv:{self.name} gives its keys no scores, so heads cannot divide a budget: leave adaptive out"
        )

    def keep(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """Positions to keep, (kv_heads, kept) ascending: the best of each head."""
        kept = self.n_kept(keys.shape[1])
        return top(self.score(keys, values, queries, scale), kept, self.sink, self.window)

    def keep_each(
        self,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        queries: Tensor | None,
        scale: float,
        kept: int,
    ) -> list[Tensor]:
        """Positions to keep of each head, ascending, `kept` a head on average. Heads may have different lengths:
        keys[h], values[h] are (tokens, dim); queries (kv_heads, group, q, dim)."""
        scores = self.score_each(keys, values, queries, scale)
        if not self.adaptive:
            return [top(s[None], min(kept, len(s)), self.sink, self.window)[0] for s in scores]
        return divide(scores, kept, self.floor, self.sink, self.window)

    def score_each(
        self, keys: Sequence[Tensor], values: Sequence[Tensor], queries: Tensor | None, scale: float
    ) -> list[Tensor]:
        """The scores of each head, which may have different lengths."""
        if len({len(one) for one in keys}) == 1:
            return list(self.score(torch.stack(tuple(keys)), torch.stack(tuple(values)), queries, scale))
        return [
            self.score(k[None], v[None], None if queries is None else queries[h : h + 1], scale)[0]
            for h, (k, v) in enumerate(zip(keys, values, strict=True))
        ]


def top(scores: Tensor, kept: int, sink: int, window: int) -> Tensor:
    """The `kept` best positions, (kv_heads, kept) ascending, with the first `sink` and last `window` among
    them."""
    scores = scores.clone()
    scores[:, :sink] = torch.inf
    scores[:, scores.shape[1] - window :] = torch.inf
    return scores.topk(max(kept, 1), dim=-1, sorted=False).indices.sort(-1).values


def divide(scores: Sequence[Tensor], kept: int, floor: float, sink: int, window: int) -> list[Tensor]:
    """AdaKV: `kept` keys a head on average go to the best scores of the layer; each head first gets its own best
    `floor` * `kept`. `scores[h]`: (tokens_h,). Returns positions of each head, ascending."""
    raised = []
    for one in scores:
        one = one.float().clone()
        least = max(round(floor * kept), min(sink + window, kept), 1)
        one[:sink] = torch.inf
        one[len(one) - window :] = torch.inf
        one[one.topk(min(least, len(one))).indices] = torch.inf
        raised.append(one)
    total = min(kept * len(scores), sum(map(len, scores)))
    best = torch.cat(raised).topk(total, sorted=False).indices.sort().values
    ends = torch.tensor([len(one) for one in raised], device=best.device).cumsum(0)
    head = torch.searchsorted(ends, best, right=True)
    return [best[head == h] - int(ends[h]) + len(raised[h]) for h in range(len(raised))]
