"""The bytes that a model's own cache takes in vLLM, of models that compress by design (windows, chunks, linear states,
latent attention): asked of the workers, which made it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

CALL = "icr_own_cache"
EXTENSION = f"{__name__}.Worker"


class Worker:
    """Joins vLLM's worker (`worker_extension_cls`); its answers are plain numbers, which cross processes."""

    model_runner: Any

    def icr_own_cache(self) -> list[list[int]]:
        """As `layers`, of this worker's caches."""
        return layers(self.model_runner.kv_cache_config.kv_cache_groups)


def layers(groups: Iterable[Any]) -> list[list[int]]:
    """[bytes, tokens that they hold, most tokens that stay] of each layer. No tokens: a state of one size; 0 at most:
    every token stays. `groups`: vLLM's, as it allocates them (a window whose group keeps everything counts in full)."""
    found = []
    for group in groups:
        each = getattr(group.kv_cache_spec, "kv_cache_specs", None)
        specs = each.values() if each else [group.kv_cache_spec] * len(group.layer_names)
        found += [_layer(spec, {kind.__name__ for kind in type(spec).__mro__}) for spec in specs]
    return found


def _layer(spec: Any, kinds: set[str]) -> list[int]:
    size = int(spec.real_page_size_bytes)
    if "MambaSpec" in kinds:
        return [size, 0, 0]
    window = spec.sliding_window if "SlidingWindowSpec" in kinds else None
    chunk = spec.attention_chunk_size if "ChunkedLocalAttentionSpec" in kinds else None
    return [size, int(spec.block_size), int(window or chunk or 0)]


def held(ranks: Sequence[Sequence[Sequence[int]]], tokens: int) -> int:
    """Bytes of a sequence of so many tokens over all ranks, without what a last block leaves free."""
    total = 0.0
    for size, block, most in (layer for rank in ranks for layer in rank):
        total += size * min(tokens, most or tokens) / block if block else size
    return round(total)
