"""The attention function transformers calls: dense through its own sdpa, or the active session's sparse step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from . import repeat
from .session import Session

NAME = "icr_kv"
# The session whose block this thread is in; nothing outlives the block.
_ACTIVE: ContextVar[Session | None] = ContextVar("icr_kv_session", default=None)


@contextmanager
def active(session: Session) -> Iterator[Session]:
    """Attention of this thread goes through `session` inside the block."""
    before = _ACTIVE.set(session)
    try:
        yield session
    finally:
        _ACTIVE.reset(before)


def forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature: query (batch, heads, q, dim), key/value (batch, kv_heads, tokens,
    dim). `s_aux` are a model's attention sinks (gpt-oss): one logit a head beside those of the keys. `softcap` bounds the
    scores (Gemma 2); sdpa would leave it out."""
    session = _ACTIVE.get()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    sinks, cap = kwargs.get("s_aux"), kwargs.get("softcap")
    if session is not None and (slot := session.slot(module.layer_idx)) is not None:
        if session.repeating is not None:
            repeat.score(session, slot, query, key, scale)
        else:
            session.observe(slot, query, scale)
        if session.prefill and not session.decoding and session.repeating is None and query.shape[2] > 1:
            return session.prefill(query, key, value, scale, sinks), None
        if session.decoding and (session.ragged or (session.sparse and query.shape[2] == 1)):
            return session.attend(slot, query, key, value, scale, sinks), None
        hidden = getattr(module, "masked_key_indices", None)  # kvpress's name, on layers of a masking press
        if hidden is not None:
            session.mask(slot, query, key, hidden, scale)
    if sinks is not None or cap is not None:
        return _explicit(query, key, value, attention_mask, scale, sinks, cap), None
    if session is not None and query.shape[2] == 1 and query.device.type == "cpu":
        return _one_query(query, key, value, attention_mask, scale), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )


def _one_query(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """A dense decode step on a CPU: the query heads of a KV head as rows of one product, which reads each key once (sdpa
    with enable_gqa reads it for every query head, 5 to 6 times slower). Returns (batch, 1, heads, dim)."""
    rows = query.view(query.shape[0], key.shape[1], -1, query.shape[3])
    out = torch.nn.functional.scaled_dot_product_attention(
        rows, key, value, attn_mask=None if mask is None else mask[..., -1:, : key.shape[2]], scale=scale
    )
    return out.reshape(query.shape[0], 1, query.shape[1], value.shape[3])


def _explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    sinks: Tensor | None,
    cap: float | None,
) -> Tensor:
    """Dense attention with a logit a head that takes weight and gives no value (`sinks`), or scores within `cap`. Returns
    (batch, q, heads, dim)."""
    batch, heads, q, dim = query.shape
    rows = query.view(batch, key.shape[1], -1, q, dim)
    scores = (rows @ key.unsqueeze(2).transpose(3, 4)).float() * scale
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        seen = mask[..., : key.shape[2]].unsqueeze(2)
        scores = scores.masked_fill(~seen, -torch.inf) if mask.dtype == torch.bool else scores + seen
    elif q > 1:
        past = key.shape[2] - q
        future = torch.ones(q, key.shape[2], dtype=torch.bool, device=query.device).triu(past + 1)
        scores = scores.masked_fill(future, -torch.inf)
    if sinks is not None:
        extra = sinks.view(1, key.shape[1], -1, 1, 1).float().expand(batch, -1, -1, q, 1)
        scores = torch.cat([scores, extra], -1)
    weights = torch.softmax(scores, -1)[..., : key.shape[2]]
    out = weights.to(value.dtype) @ value.unsqueeze(2)
    return out.reshape(batch, heads, q, -1).transpose(1, 2).contiguous()


def register() -> str:
    """Make the function known to transformers; returns its name. Safe to call often."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
