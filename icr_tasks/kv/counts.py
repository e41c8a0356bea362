"""One schema of what was measured of a KV cache, for every engine."""

from __future__ import annotations

from typing import Any, TypedDict


class KvCounts(TypedDict, total=False):
    """What an engine measured of one request's KV cache (`kv` of its digest); the same names and units in
    icr-hf and vLLM. None: this engine cannot tell, or there was no step. Bytes are sums over layers."""

    setting: str  # what ran
    method: str  # "full" where nothing was compressed
    frees: bool  # whether the method drops keys
    tokens: int  # of the prompt (query-agnostic: of the context)
    tokens_stored: int
    fallback: bool  # the prompt was read in full, because nothing could be left out
    steps: int  # generated tokens that went through the model
    sparse_steps: int  # those in which keys were left out
    bytes_full_per_token: int | float | None
    bytes_stored_per_token: float | None
    stored_fraction: float | None
    index_bytes: int
    build_seconds: float
    bytes_read_per_step: int | None
    read_fraction: float | None
    attended_fraction: float | None
    mass_kept: float | None
    peak_memory_bytes: int | None
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    native: dict[str, Any]  # of a model that compresses by design: layers by kind, bytes of its own cache
