"""Which tokens of a batch are generated ones, and where their sequence lies in the paged cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

# Prompt lengths of the requests in the batch being built; the runner tells them just before (see `plugin`).
prompt_tokens: torch.Tensor | None = None


@dataclass(frozen=True)
class Step:
    """Token `at` of the batch attends over `slots` (its sequence so far, itself included); the prompt had `prompt` tokens."""

    at: int
    slots: torch.Tensor
    prompt: int


def plan(common: Any, block_size: int) -> list[Step]:
    """Every query token at or after the end of its prompt. A re-computed answer after preemption is decode, too.

    Raises RuntimeError when the runner did not tell the prompt lengths (a vLLM this backend does not know).
    """
    if prompt_tokens is None:
        raise RuntimeError("the ICR_KV backend got no prompt lengths from this vLLM's model runner; use vllm 0.32")
    starts, lengths = common.query_start_loc_cpu.tolist(), common.seq_lens.tolist()
    found = []
    for row in range(common.num_reqs):
        count, prompt = starts[row + 1] - starts[row], int(prompt_tokens[row])
        first = lengths[row] - count
        if not prompt or not count or lengths[row] <= prompt:
            continue
        positions = torch.arange(lengths[row], device=common.block_table_tensor.device)
        slots = common.block_table_tensor[row].long()[positions // block_size] * block_size + positions % block_size
        for position in range(max(prompt, first), lengths[row]):
            found.append(Step(starts[row] + position - first, slots[: position + 1], prompt))
    return found


class Planning:
    """Mixin of metadata builders: vLLM's metadata with `icr_steps`, the batch's generated tokens."""

    block_size: int

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> Any:
        """As the builder's own."""
        found = super().build(common_prefix_len, common_attn_metadata, fast_build)  # type: ignore[misc]
        found.icr_steps = plan(common_attn_metadata, self.block_size)
        return found
