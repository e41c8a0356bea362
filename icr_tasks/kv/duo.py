"""DuoAttention (arXiv 2410.10819): retrieval heads keep everything, streaming heads a sink and the most recent tokens.

Which heads retrieve is learned once a model and given as a file (`scores=`): one line a layer, one number a KV head, as the
authors publish it (`full_attention_heads.tsv`). The budget is the share of heads that retrieve, those with the largest numbers in
the whole model. Streaming heads roll while decoding. Prompts are prefilled densely (the authors' prefill is sparse in streaming
heads as well).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import IcrError
from ..lazy import torch
from ..params import Name, Whole
from ..registry import kv_method
from .base import Observed
from .evict import Evictor

if TYPE_CHECKING:
    from torch import Tensor


@kv_method(
    "duo",
    budget=0.5,
    frees=True,
    knobs={
        "sink": Whole(64),
        "window": Whole(256),
        "every": Whole(1),
        "scores": Name("", "file of head scores"),
    },
    inside=(),
    quiet=("scores",),
    files=("scores",),
)
class Duo(Evictor):
    """Keeps everything in `budget` of the KV heads, sink + window in the others."""

    scores = ""
    layer = 0

    def __init__(self, *, name: str, budget: int | float | None, frees: bool, **knobs: Any) -> None:
        if isinstance(budget, int):
            raise IcrError(
                f"kv:{name} takes the share of heads that retrieve, e.g. kv:{name}@0.5, not tokens"
            )
        super().__init__(name=name, budget=budget, frees=frees, **knobs)

    @property
    def own_lengths(self) -> bool:
        """Always."""
        return True

    @property
    def grows(self) -> float:
        """Retrieval heads grow; the others roll."""
        return self.retrieving_share if self.every == 1 else 1.0

    @property
    def retrieving_share(self) -> float:
        """Share of heads that keep everything."""
        return len(self.retrieving) / (len(self.table) * len(self.table[0]))

    def applies(self, n: int) -> bool:
        """Sink and window must leave something out in the streaming heads."""
        return self.whole or n > self.sink + self.window

    @cached_property
    def table(self) -> list[list[float]]:
        """The file's numbers. Raises IcrError when it cannot be read."""
        if not self.scores:
            raise IcrError(
                f"kv:{self.name} needs scores=FILE, the head scores of this model (one line a layer, one number a KV head)"
            )
        try:
            lines = Path(self.scores).expanduser().read_text(encoding="utf-8").splitlines()
            found = [[float(x) for x in line.replace(",", " ").split()] for line in lines if line.strip()]
        except (OSError, ValueError) as error:
            raise IcrError(f"scores={self.scores} cannot be read as numbers ({error})") from error
        if not found or len({len(row) for row in found}) != 1:
            raise IcrError(
                f"scores={self.scores} must have one line a layer with as many numbers as there are KV heads"
            )
        return found

    @cached_property
    def retrieving(self) -> set[tuple[int, int]]:
        """(layer, KV head) of the heads that keep everything."""
        every = [(-x, layer, head) for layer, row in enumerate(self.table) for head, x in enumerate(row)]
        return {(layer, head) for _, layer, head in sorted(every)[: self.share(len(every))]}

    def fits(self, layers: int, heads: int) -> None:
        """Raises IcrError for scores of another model."""
        shape = (len(self.table), len(self.table[0]))
        if shape != (layers, heads):
            raise IcrError(
                f"scores={self.scores} are those of another model: {shape[0]} layers of {shape[1]} KV heads, this one has "
                f"{layers} of {heads}"
            )

    def at(self, seen: Observed) -> Any:
        """This method at a layer. Raises IcrError for scores of another model."""
        self.fits(seen.layers, seen.heads)
        own = copy.copy(self)
        own.layer = seen.layer
        return own

    def keep_each(
        self,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        queries: Tensor | None,
        scale: float,
        kept: int,
    ) -> list[Tensor]:
        """Everything, or sink and window, of each head."""
        return [
            self._ends(one)
            if (self.layer, head) not in self.retrieving
            else torch.arange(len(one), device=one.device)
            for head, one in enumerate(keys)
        ]

    def _ends(self, one: Tensor) -> Tensor:
        every = torch.arange(len(one), device=one.device)
        return (
            every
            if len(one) <= self.sink + self.window
            else torch.cat([every[: self.sink], every[len(one) - self.window :]])
        )

    def n_kept(self, n: int) -> int:
        """A head's mean number of tokens, rounded."""
        return round(self._mean(n))

    def _mean(self, n: int) -> float:
        share = self.retrieving_share
        return share * n + (1 - share) * min(n, self.sink + self.window)

    def formula(self, n: int, heads: int, dim: int, item: int) -> dict[str, float]:
        """Of an average layer."""
        each = 2 * heads * dim * item
        return {"stored": each * self._mean(n), "read": each * (self._mean(n) + 1), "index": 0}
