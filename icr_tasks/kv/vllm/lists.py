"""What an evictor keeps, where blocks are shared and none can be freed: a list of its own for each KV head of each request,
made once from the keys of its prompt and read at every step. The answers are the evictor's, the memory is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .sparse import Plan, Step

# Evictors that decide by keys alone: the queries of a prompt whose blocks came from the prefix cache are never seen.
METHODS = ("keydiff",)


class Lists:
    """One layer's lists. A request that is in no step (finished, preempted) is forgotten; of one that comes back they
    are made again, from the same keys."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._rows: tuple[str | None, ...] = ()
        self._stacked: Tensor | None = None

    def of(
        self, plan: Plan, step: Step, read: Callable[[Tensor], tuple[Tensor, Tensor]], scale: float
    ) -> Tensor:
        """Positions in the prompt that a step's request keeps, (kv_heads, kept) ascending. `read(slots)` gives keys and
        values (kv_heads, tokens, dim)."""
        found = self._kept.get(step.request) if step.request else None
        if found is None:
            keys, values = read(replace(step, length=step.prompt).slots(plan.table, plan.block))
            found = plan.method.keep(keys, values, None, scale)
            if step.request:
                self._kept[step.request] = found
        return found

    def only(self, steps: Iterable[Step]) -> None:
        """Forget every request that is in none of these steps."""
        names = {step.request for step in steps}
        for gone in [name for name in self._kept if name not in names]:
            del self._kept[gone]

    def stacked(
        self, plan: Plan, width: int, read: Callable[[Tensor], tuple[Tensor, Tensor]], scale: float
    ) -> Tensor:
        """The lists of all steps, (steps, kv_heads, width) int32, as the kernel reads them; zeros behind a list's end and
        for prompts that are read in full. The same tensor as long as the requests are the same."""
        rows = tuple(step.request for step in plan.steps)
        if self._stacked is None or rows != self._rows or None in rows or self._stacked.shape[2] != width:
            self.only(plan.steps)
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


def attention(query: Tensor, keys: Tensor, values: Tensor, kept: Tensor, prompt: int, scale: float) -> Tensor:
    """Softmax over what is kept of the prompt and all that came after it; query (kv_heads, group, dim)."""
    after = torch.arange(prompt, keys.shape[1], device=kept.device).expand(len(kept), -1)
    at = torch.cat([kept, after], 1).unsqueeze(-1).expand(-1, -1, keys.shape[2])
    scores = (query.float() @ keys.gather(1, at).float().transpose(1, 2)) * scale
    return torch.softmax(scores, -1) @ values.gather(1, at).float()
