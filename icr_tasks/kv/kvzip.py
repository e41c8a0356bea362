"""KVzip (arXiv 2505.23416): keys stay that the model needs to repeat the prompt.

After the prefill the model is told to repeat the prompt, a part at a time, with the part as its own answer; a key's score is the
most attention that any query of any head of its group gives it meanwhile, beside the first `sink` keys and the repetition itself.
The budget is divided among all heads of all layers by these scores, as released (no floor). Costs about twice the prefill again;
needs no question, so it serves a query-agnostic run.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ..errors import IcrError
from ..params import Whole
from ..registry import kv_method
from .base import Observed
from .evict import Evictor

if TYPE_CHECKING:
    from torch import Tensor


@kv_method(
    "kvzip", budget=0.5, frees=True, knobs={"sink": Whole(4), "window": Whole(0), "part": Whole(2048, low=1)}
)
class KVzip(Evictor):
    """Keeps budget * prompt tokens a head on average, those that the repetition attended to."""

    repeats = True
    adaptive = True
    across = True  # layers share the budget
    floor = 0.0
    part = 2048
    seen: Observed | None = None

    def at(self, seen: Observed) -> Any:
        """This method with one layer's scores."""
        own = copy.copy(self)
        own.seen = seen
        return own

    def score(self, keys: Tensor, values: Tensor, queries: Tensor | None, scale: float) -> Tensor:
        """What the repetition gave, (kv_heads, tokens)."""
        if self.seen is None or self.seen.repeated is None:
            raise IcrError(f"kv:{self.name} was not shown the prompt's repetition")
        return self.seen.repeated
