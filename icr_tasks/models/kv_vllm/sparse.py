"""What both backends share: after the dense kernel, the rows of generated tokens are written again, sparsely."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import Tensor

from ...context.setting import Setting
from ...errors import IcrError
from ..kv import make
from ..kv.base import Method
from . import VARIABLE, running
from .counters import Counters
from .steps import Step


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
        raise IcrError(f"{VARIABLE} does not work with {' and '.join(found)}; unset {VARIABLE} for this model")


def paged(kv_cache: Tensor, slots: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Keys and values (kv_heads, slots, dim) out of FlashAttention's cache (blocks, kv_heads, block, 2 * dim)."""
    blocks = kv_cache.transpose(1, 2)
    size = blocks.shape[1]
    found = blocks[slots // size, slots % size].transpose(0, 1)
    return found[..., :dim], found[..., dim:]


def attend(impl: Any, steps: list[Step], query: Tensor, output: Tensor, gather: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:  # fmt: skip
    """Overwrite output rows of `steps`. query (tokens, heads, dim); output (tokens, heads * dim) or (tokens, heads, dim).

    `gather(slots)` returns keys and values (kv_heads, tokens, dim) of those cache slots.
    """
    chosen = method()
    if chosen is None:
        return
    for step in steps:
        n = len(step.slots)
        per_token = 2 * impl.num_kv_heads * impl.head_size * query.element_size()
        if not chosen.applies(step.prompt):
            _counters().add(steps=1, fallback_steps=1, bytes_read=n * per_token, bytes_full=n * per_token, tokens_read=n, tokens_full=n)  # fmt: skip
            continue
        keys, values = gather(step.slots)
        zone = chosen.zone(step.prompt)
        # tokens that left the window since the prompt ended enter the zone, as many at a time as `Method.grow` moves
        zone.end += max(0, (n - zone.end - chosen.window) // chosen.update) * chosen.update
        zone.index = chosen.build(keys[:, zone.start : zone.end], values[:, zone.start : zone.end])
        grouped = query[step.at].view(impl.num_kv_heads, -1, impl.head_size)
        done = chosen.attend(grouped, keys, values, zone, impl.scale)
        output[step.at] = done.out.reshape(output[step.at].shape).to(output.dtype)
        _counters().add(
            steps=1, sparse_steps=1, bytes_read=done.bytes_read, bytes_full=n * per_token, tokens_read=done.tokens_read, tokens_full=n
        )  # fmt: skip
