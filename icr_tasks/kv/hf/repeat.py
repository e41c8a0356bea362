"""The prompt repeated by the model itself after the prefill, a part at a time, with the part as its answer: what each of its
queries attends to is how much a key is needed (KVzip)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .session import Session

WHOLE = "\n\nRepeat the previous context exactly."
FROM = "\n\nRepeat the part of the previous context exactly, starting with"
_LEAD = 8  # tokens of the part before that say where a part begins
_SINK = 4  # first keys that take weight beside the part


def run(
    batch: Any, session: Session, ids: Sequence[int], ask: tuple[list[int], list[int]], part: int
) -> None:
    """Fill `session.repeated` for one sequence; the cache is afterwards as it was."""
    n, layers = len(ids), [batch.cache.layers[i] for i in session.where]
    heads = [layer.keys.shape[1] for layer in layers]
    session.repeated = [torch.zeros(h, n, device=batch.ids.device) for h in heads]
    mask = batch.mask
    try:
        for start in range(0, n, part):
            end = min(start + part, n)
            lead = [*ask[1], *ids[max(0, start - _LEAD) : start]] if start else ask[0]
            said = torch.tensor([[*lead, *ids[start:end]]], device=batch.ids.device)
            batch.repad([0], said.shape[1])
            session.repeating = (start, end)
            batch.run(said, torch.arange(n, n + said.shape[1], device=said.device)[None])
            for layer in layers:
                layer.cut(n)
    finally:
        session.repeating, batch.mask = None, mask


def score(session: Session, slot: int, query: Tensor, key: Tensor, scale: float) -> None:
    """One layer of a pass: query (1, heads, q, dim), key (1, kv_heads, prompt + q, dim)."""
    assert session.repeating is not None
    start, end = session.repeating
    q, keys = query.shape[2], key[0]
    grouped = query[0].view(keys.shape[0], -1, q, query.shape[3])
    sink = min(_SINK, start)
    near = torch.cat([keys[:, :sink], keys[:, start:end], keys[:, -q:]], 1)
    future = torch.ones(q, q, dtype=torch.bool, device=key.device).triu(1)
    for h in range(keys.shape[0]):  # a head at a time: (group, q, part + q)
        logits = (grouped[h].float() @ near[h].float().T) * scale
        logits[..., -q:].masked_fill_(future, -torch.inf)
        weights = torch.softmax(logits, -1)[..., sink : sink + end - start]
        session.repeated[slot][h, start:end] = weights.amax((0, 1))
