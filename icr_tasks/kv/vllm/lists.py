"""What an evictor keeps, where blocks are shared and none can be freed: a list of its own for each KV head of each request,
made once from the keys of its prompt, and from the queries of the prompt's end where the method asks for them, and read at
every step. The answers are the evictor's, the memory is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .sparse import Plan, Step

# Evictors that decide by keys, or by keys and the prompt's last queries.
METHODS = ("keydiff", "snapkv", "chunkkv")
PATIENCE = 16  # batches without a request after which a list that queries made is forgotten


@dataclass(frozen=True)
class Tail:
    """Tokens [start, stop) of a batch are a prompt's, among its last ones, from position `first` of it on."""

    request: str
    start: int
    stop: int
    first: int


class Lists:
    """One layer's lists. A request that is in no step (finished, preempted) is forgotten; of one that comes back they
    are made again, from the same keys. Queries are seen once, so what they made stays a little longer."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._queries: dict[str, tuple[int, Tensor]] = {}  # position of the next one, (tokens, heads, dim)
        self._batch, self._last = 0, dict[str, int]()  # when a request was last seen
        self._rows: tuple[str | None, ...] = ()
        self._stacked: Tensor | None = None

    def see(self, tails: Iterable[Tail], query: Tensor) -> None:
        """Remember the last queries of prompts; query (tokens, heads, dim) of a batch. A prompt may come in chunks."""
        for tail in tails:
            new = query[tail.start : tail.stop].clone()  # a view would keep the whole batch
            position, held = self._queries.pop(tail.request, (-1, new))
            both = torch.cat([held, new]) if position == tail.first else new
            self._queries[tail.request] = tail.first + len(new), both
            self._last[tail.request] = self._batch

    def _window(self, step: Step, need: int, heads: int) -> Tensor:
        """The queries of the last `need` tokens of a step's prompt, (kv_heads, group, need, dim)."""
        position, held = self._queries.pop(step.request or "", (-1, None))
        if held is None or position != step.prompt or len(held) < need:
            raise RuntimeError(
                f"ICR_KV did not see the last {need} queries of a prompt of {step.prompt} tokens; set "
                "enable_prefix_caching=False, or use --model icr-hf"
            )
        window = held[len(held) - need :]
        return window.view(need, heads, -1, window.shape[-1]).permute(1, 2, 0, 3)

    def of(
        self, plan: Plan, step: Step, read: Callable[[Tensor], tuple[Tensor, Tensor]], scale: float
    ) -> Tensor:
        """Positions in the prompt that a step's request keeps, (kv_heads, kept) ascending. `read(slots)` gives keys and
        values (kv_heads, tokens, dim)."""
        found = self._kept.get(step.request) if step.request else None
        if found is None:
            keys, values = read(replace(step, length=step.prompt).slots(plan.table, plan.block))
            need = min(plan.method.needs_queries, step.prompt)
            queries = self._window(step, need, len(keys)) if need else None
            found = plan.method.keep(keys, values, queries, scale)
            if step.request:
                self._kept[step.request] = found
        return found

    def only(self, plan: Plan) -> None:
        """Forget every request that is in none of the plan's steps."""
        self._batch += 1
        self._last |= {step.request: self._batch for step in plan.steps if step.request}
        patience = PATIENCE if plan.method.needs_queries else 0
        for gone in [name for name, batch in self._last.items() if self._batch - batch > patience]:
            del self._last[gone]
            self._kept.pop(gone, None)
            self._queries.pop(gone, None)

    def stacked(
        self, plan: Plan, width: int, read: Callable[[Tensor], tuple[Tensor, Tensor]], scale: float
    ) -> Tensor:
        """The lists of all steps, (steps, kv_heads, width) int32, as the kernel reads them; zeros behind a list's end and
        for prompts that are read in full. The same tensor as long as the requests are the same."""
        rows = tuple(step.request for step in plan.steps)
        if self._stacked is None or rows != self._rows or None in rows or self._stacked.shape[2] != width:
            self.only(plan)
            found = [
                self.of(plan, step, read, scale).int() if plan.method.applies(step.prompt) else None
                for step in plan.steps
            ]
            heads = next(x.shape[0] for x in found if x is not None)
            like = next(x for x in found if x is not None)
            self._stacked = torch.stack(
                [
                    like.new_zeros(heads, width)
                    if x is None
                    else torch.nn.functional.pad(x, (0, width - x.shape[1]))
                    for x in found
                ]
            )
            self._rows = rows
        return self._stacked


def of_layer(impl: Any) -> Lists:
    """The lists of a layer, which its implementation carries."""
    return vars(impl).setdefault("icr_lists", Lists())


def attention(query: Tensor, keys: Tensor, values: Tensor, kept: Tensor, prompt: int, scale: float) -> Tensor:
    """Softmax over what is kept of the prompt and all that came after it; query (kv_heads, group, dim)."""
    after = torch.arange(prompt, keys.shape[1], device=kept.device).expand(len(kept), -1)
    at = torch.cat([kept, after], 1).unsqueeze(-1).expand(-1, -1, keys.shape[2])
    scores = (query.float() @ keys.gather(1, at).float().transpose(1, 2)) * scale
    return torch.softmax(scores, -1) @ values.gather(1, at).float()
