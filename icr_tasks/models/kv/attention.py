"""The attention function transformers calls: dense through its own sdpa, or the active session's sparse step.

Both registries are needed: without a mask function of the same name transformers builds no mask at all and padding
would be attended to (masking_utils.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from .session import Session

NAME = "icr_kv"
_ACTIVE: list[Session] = []


@contextmanager
def active(session: Session) -> Iterator[Session]:
    """Attention of this thread goes through `session` inside the block."""
    _ACTIVE.append(session)
    try:
        yield session
    finally:
        _ACTIVE.pop()


def forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' attention signature: query (batch, heads, q, dim), key/value (batch, kv_heads, tokens, dim)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    session = _ACTIVE[-1] if _ACTIVE else None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if session is not None and session.sparse and query.shape[2] == 1:
        return session.attend(module.layer_idx, query, key, value, scale), None
    if session is not None and not session.decoding:
        session.observe(module.layer_idx, query, scale)
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)


def register() -> str:
    """Make the function known to transformers; returns its name. Safe to call often."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
