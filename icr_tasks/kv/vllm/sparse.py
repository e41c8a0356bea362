"""What both backends share: after the dense kernel, the rows of generated tokens are written again,
sparsely."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...errors import IcrError
from ...settings import Setting
from .. import make
from ..base import Method
from ..choose import TASK, VARIABLE, parse
from . import lists, seam
from .counters import CONFIG, Counters, path, told

# ---- steps ---------------------------------------------------------------------------------------
# Which tokens of a batch are generated ones, and where their sequence lies in the paged cache.


@dataclass
class Step:
    """Token `at` of the batch attends over its sequence so far, `length` tokens with itself, of which
    `prompt` were the prompt; the sequence's blocks are row `row` of the batch's table."""

    at: int
    row: int
    length: int
    prompt: int
    request: str | None = None

    def slots(self, table: Tensor, block: int) -> Tensor:
        """The cache slots of the sequence. `table`: the batch's blocks, of `block` tokens each."""
        positions = torch.arange(self.length, device=table.device)
        return table[self.row].long()[positions // block] * block + positions % block


@dataclass
class Plan:
    """The generated tokens of a batch, the method they take, and where that is counted. `layers`: how many
    take this plan; `tokens`: of the whole batch; `made`: what the first of the layers made of it for the
    others; `counted`: tokens whose step a layer has counted, so that a step is one whatever the number of layers and of
    their groups (each group has a plan of its own)."""

    method: Method
    steps: list[Step]
    counters: Counters
    table: Tensor
    block: int
    layers: int = 1
    tokens: int = 0
    made: Any = None
    counted: set[int] = field(default_factory=set)
    tails: list[lists.Tail] = field(default_factory=list)


def _rows(common: Any) -> Iterator[tuple[int, int, int, int, int, str]]:
    """(row, its first token in the batch, tokens, that token's position, prompt, name) of each request of a batch.

    Raises RuntimeError when no runner told the rows of the batch (a vLLM this backend does not know).
    """
    told_rows = seam.rows(common.num_reqs)
    prompts, names = told_rows.prompts, told_rows.names
    # exact without speculative decoding (refused), and it spares a wait for the device
    known = getattr(common, "seq_lens_cpu_upper_bound", None)
    starts, lengths = (
        common.query_start_loc_cpu.tolist(),
        (common.seq_lens if known is None else known).tolist(),
    )
    for row in range(common.num_reqs):
        count, prompt = starts[row + 1] - starts[row], int(prompts[row])
        if prompt and count:
            yield row, starts[row], count, lengths[row] - count, prompt, names[row]


def plan(common: Any) -> list[Step]:
    """Every query token at or after the end of its prompt. A re-computed answer after preemption is decode,
    too."""
    found = []
    for row, start, count, first, prompt, name in _rows(common):
        for position in range(max(prompt, first), first + count):
            found.append(Step(start + position - first, row, position + 1, prompt, name or None))
    return found


def tails(common: Any, need: int) -> list[lists.Tail]:
    """The tokens of a batch that are among the last `need` of their prompts."""
    found = []
    for _, start, count, first, prompt, name in _rows(common):
        begin, end = max(first, prompt - need), min(first + count, prompt)
        if name and begin < end:
            found.append(lists.Tail(name, start + begin - first, start + end - first, begin))
    return found


class Planning:
    """Mixin of metadata builders: vLLM's metadata with `icr_plan`, or None where full attention is asked
    for."""

    block_size: int

    def __init__(
        self, kv_cache_spec: Any, layer_names: Any, vllm_config: Any, *args: Any, **kwargs: Any
    ) -> None:
        """As the builder's own; the engine's state is in its config, else (stock vLLM) in the environment."""
        super().__init__(kv_cache_spec, layer_names, vllm_config, *args, **kwargs)  # type: ignore[call-arg]
        engine = (getattr(vllm_config, "additional_config", None) or {}).get(CONFIG) or {}
        self._asked = engine.get("setting") or os.environ.get(VARIABLE)
        self._file = engine.get("counters") or (path() if self._asked else None)
        self._counters: Counters | None = None
        self._layers = len(layer_names)

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> Any:
        """As the builder's own."""
        found = super().build(common_prefix_len, common_attn_metadata, fast_build)  # type: ignore[misc]
        found.icr_plan = self._plan(common_attn_metadata)
        return found

    def _plan(self, common: Any) -> Plan | None:
        text = told(self._file) if self._asked == TASK and self._file else self._asked
        if not text or not self._file:
            return None
        if self._counters is None:
            self._counters = _counters(str(self._file), _rank())
        method, table, tokens = method_of(text), common.block_table_tensor, common.num_actual_tokens
        found = Plan(method, plan(common), self._counters, table, self.block_size, self._layers, tokens)
        found.counted = seam.rows(common.num_reqs).counted
        if method.needs_queries:
            found.tails = tails(common, method.needs_queries)
        return found


@lru_cache(maxsize=8)
def _counters(file: str, rank: int) -> Counters:
    """A worker's part of a file, one for all groups of layers: each of its own would take the others' slots."""
    return Counters(file, rank)


@lru_cache(maxsize=4)
def method_of(text: str) -> Method:
    """The method that a setting names. Raises IcrError for one that this backend does not have."""
    setting = Setting.parse(parse(text))
    knobs = {k: v for k, v in setting.params.items() if k not in ("split", "prefill")}
    return make(str(setting.method), setting.amount, knobs)  # type: ignore[arg-type]


def asked() -> Method | None:
    """The one method of the engine being made; None where each request brings its own."""
    try:
        from vllm.config import get_current_vllm_config

        return asked_of(get_current_vllm_config())
    except (AssertionError, RuntimeError):  # no engine is being made in this process
        return asked_of(None)


def asked_of(config: Any) -> Method | None:
    """The one method of an engine of this VllmConfig, as `asked`."""
    engine = (getattr(config, "additional_config", None) or {}).get(CONFIG) or {}
    text = engine.get("setting") or os.environ.get(VARIABLE)
    return method_of(text) if text and text != TASK else None


def _rank() -> int:
    from vllm.distributed import get_world_group

    return get_world_group().rank


def refuse(impl: Any, kv_cache_dtype: str) -> None:
    """Raises IcrError for layers whose attention is more than a causal softmax over 16- or 32-bit keys."""
    sliding = getattr(impl, "sliding_window", None)
    reasons = {
        "a sliding window": sliding not in (None, -1, (-1, -1)),
        "ALiBi": getattr(impl, "alibi_slopes", None) is not None,
        "attention sinks": getattr(impl, "sinks", None) is not None,
        "a logits soft cap": bool(getattr(impl, "logits_soft_cap", 0)),
        f"kv_cache_dtype={kv_cache_dtype}": kv_cache_dtype not in seam.WHOLE,
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
    plan: Plan,
    query: Tensor,
    output: Tensor,
    gather: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> None:
    """Overwrite output rows of the plan's steps. query (tokens, heads, dim); output (tokens, heads * dim) or
    (tokens, heads, dim).

    `gather(slots)` returns keys and values (kv_heads, tokens, dim) of those cache slots.
    """
    chosen = plan.method
    if chosen.frees:
        known = lists.of_layer(impl)
        known.only(plan)
    for step in plan.steps:
        n = step.length
        per_token = 2 * impl.num_kv_heads * impl.head_size * query.element_size()
        full = {"bytes_full": n * per_token, "tokens_full": n}
        if not chosen.applies(step.prompt):
            count(plan, step, False, bytes_read=n * per_token, tokens_read=n, **full)
            continue
        keys, values = gather(step.slots(plan.table, plan.block))
        if chosen.frees:
            kept = known.of(plan, step, gather, impl.scale)
            grouped = query[step.at].view(impl.num_kv_heads, -1, impl.head_size)
            out = lists.attention(grouped, keys, values, kept, step.prompt, impl.scale)
            output[step.at] = out.reshape(output[step.at].shape).to(output.dtype)
            kept_tokens = kept.shape[1] + n - step.prompt
            read = {"bytes_read": kept_tokens * per_token, "tokens_read": kept_tokens}
            count(plan, step, kept_tokens < n, **read, **full)
            continue
        zone = chosen.zone(step.prompt)
        zone.end = chosen.end(zone, n)
        start = time.perf_counter()
        zone.index = chosen.build(keys[:, zone.start : zone.end], values[:, zone.start : zone.end])
        index = {"build_seconds": time.perf_counter() - start, "index_bytes": chosen.index_bytes(zone)}
        grouped = query[step.at].view(impl.num_kv_heads, -1, impl.head_size)
        done = chosen.attend(grouped, keys, values, zone, impl.scale)
        output[step.at] = done.out.reshape(output[step.at].shape).to(output.dtype)
        read = {"bytes_read": done.bytes_read, "tokens_read": done.tokens_read}
        count(plan, step, done.tokens_read < n, **read, **full, **index)


def count(plan: Plan, step: Step, sparse: bool, **counts: float) -> None:
    """A step is sparse when keys were left out of it; the first layer tells."""
    if step.at not in plan.counted:
        counts |= {"steps": 1, "sparse_steps": int(sparse), "fallback_steps": int(not sparse)}
        plan.counted.add(step.at)
    plan.counters.add(step.request, **counts)
