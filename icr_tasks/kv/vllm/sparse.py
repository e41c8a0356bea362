"""What both backends share: after the dense kernel, the rows of generated tokens are written again,
sparsely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...errors import IcrError
from ...settings import Setting
from .. import make
from ..base import Method
from ..choose import VARIABLE, running
from .counters import Counters

# ---- steps ---------------------------------------------------------------------------------------
# Which tokens of a batch are generated ones, and where their sequence lies in the paged cache.

# Prompt lengths of the requests in the batch being built; the runner tells them just before (see `plugin`).
prompt_tokens: torch.Tensor | None = None


@dataclass(frozen=True)
class Step:
    """Token `at` of the batch attends over `slots` (its sequence so far, itself included); the prompt had
    `prompt` tokens."""

    at: int
    slots: torch.Tensor
    prompt: int


def plan(common: Any, block_size: int) -> list[Step]:
    """Every query token at or after the end of its prompt. A re-computed answer after preemption is decode,
    too.

    Raises RuntimeError when the runner did not tell the prompt lengths (a vLLM this backend does not know).
    """
    if prompt_tokens is None:
        raise RuntimeError(
            "the ICR_KV backend got no prompt lengths from this vLLM's model runner; use vllm 0.32"
        )
    starts, lengths = common.query_start_loc_cpu.tolist(), common.seq_lens.tolist()
    found = []
    for row in range(common.num_reqs):
        count, prompt = starts[row + 1] - starts[row], int(prompt_tokens[row])
        first = lengths[row] - count
        if not prompt or not count or lengths[row] <= prompt:
            continue
        positions = torch.arange(lengths[row], device=common.block_table_tensor.device)
        slots = (
            common.block_table_tensor[row].long()[positions // block_size] * block_size
            + positions % block_size
        )
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


def method() -> Method | None:
    """The method that ICR_KV names, or the task's setting under ICR_KV=task; None for full attention."""
    text = running()
    return _made(text) if text else None


@lru_cache(maxsize=4)
def _made(text: str) -> Method:
    setting = Setting.parse(text)
    knobs = {k: v for k, v in setting.params.items() if k != "split"}
    return make(str(setting.method), setting.amount, knobs)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _counters() -> Counters:
    from vllm.distributed import get_tensor_model_parallel_rank

    return Counters(get_tensor_model_parallel_rank())


def refuse(impl: Any, kv_cache_dtype: str) -> None:
    """Raises IcrError for layers whose attention is more than a causal softmax over 16- or 32-bit keys."""
    sliding = getattr(impl, "sliding_window", None)
    reasons = {
        "a sliding window": sliding not in (None, -1, (-1, -1)),
        "ALiBi": getattr(impl, "alibi_slopes", None) is not None,
        "attention sinks": getattr(impl, "sinks", None) is not None,
        "a logits soft cap": bool(getattr(impl, "logits_soft_cap", 0)),
        f"kv_cache_dtype={kv_cache_dtype}": kv_cache_dtype not in ("auto", "float16", "bfloat16", "float32"),
    }
    if found := [name for name, bad in reasons.items() if bad]:
        raise IcrError(
            f"{VARIABLE} does not work with {' and '.join(found)}; unset {VARIABLE} for this model"
        )


def paged(kv_cache: Tensor, slots: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Keys and values (kv_heads, slots, dim) out of FlashAttention's cache (blocks, kv_heads, block, 2 *
    dim)."""
    blocks = kv_cache.transpose(1, 2)
    size = blocks.shape[1]
    found = blocks[slots // size, slots % size].transpose(0, 1)
    return found[..., :dim], found[..., dim:]


def attend(
    impl: Any,
    steps: list[Step],
    query: Tensor,
    output: Tensor,
    gather: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> None:
    """Overwrite output rows of `steps`. query (tokens, heads, dim); output (tokens, heads * dim) or (tokens,
    heads, dim).

    `gather(slots)` returns keys and values (kv_heads, tokens, dim) of those cache slots.
    """
    chosen = method()
    if chosen is None:
        return
    for step in steps:
        n = len(step.slots)
        per_token = 2 * impl.num_kv_heads * impl.head_size * query.element_size()
        if not chosen.applies(step.prompt):
            _counters().add(
                steps=1,
                fallback_steps=1,
                bytes_read=n * per_token,
                bytes_full=n * per_token,
                tokens_read=n,
                tokens_full=n,
            )
            continue
        keys, values = gather(step.slots)
        zone = chosen.zone(step.prompt)
        # tokens that left the window since the prompt ended enter the zone, as many at a time as
        # `Method.grow` moves
        zone.end += max(0, (n - zone.end - chosen.window) // chosen.update) * chosen.update
        zone.index = chosen.build(keys[:, zone.start : zone.end], values[:, zone.start : zone.end])
        grouped = query[step.at].view(impl.num_kv_heads, -1, impl.head_size)
        done = chosen.attend(grouped, keys, values, zone, impl.scale)
        output[step.at] = done.out.reshape(output[step.at].shape).to(output.dtype)
        _counters().add(
            steps=1,
            sparse_steps=1,
            bytes_read=done.bytes_read,
            bytes_full=n * per_token,
            tokens_read=done.tokens_read,
            tokens_full=n,
        )
