"""A KV method with a knob: keys of small norm stay (their tokens get most attention), to the power
`power`."""

from typing import Any

import icr_tasks as icr


@icr.kv_method(
    "smallnorm", budget=0.5, frees=True, knobs={"power": icr.Number(2.0, low=1), "sink": icr.Whole(4)}
)
class SmallNorm(icr.kv.Method):
    """Keeps budget * prompt tokens with the smallest keys, and the first `sink`."""

    def applies(self, n: int) -> bool:
        """Any prompt longer than the sink."""
        return n > self.sink + 1

    def keep(self, keys: Any, values: Any, queries: Any, scale: float) -> Any:
        """Positions kept, (kv_heads, kept) ascending. keys: (kv_heads, tokens, dim)."""
        size = keys.float().abs().pow(self.power).sum(-1)
        size[:, : self.sink] = -1
        return size.topk(self.n_kept(keys.shape[1]), dim=-1, largest=False).indices.sort(-1).values
