"""The document score of the paper's released analysis code, for comparison only.

It is not attention: residual stream before the layer norm, through q_proj and k_proj, without RoPE and without a
causal mask, softmax over all keys, summed over all query positions and over a document's tokens, averaged over
heads and layers. It grows with document length and lets the prompt see its future.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import IcrError
from .spans import Spans

_ROWS = 256


def scores(model: Any, spans: Spans) -> np.ndarray:
    """(documents,) float64. Quadratic in the prompt length. Raises IcrError for models without q_proj and k_proj."""
    import torch

    hidden: list[Any] = []
    layers = getattr(model, "layers", None)
    if layers is None or not hasattr(layers[0].self_attn, "q_proj"):
        raise IcrError(f"definition paper_code needs q_proj and k_proj; {type(model).__name__} has none")
    hooks = [
        layer.register_forward_pre_hook(
            lambda m, a, k: hidden.append(a[0] if a else k["hidden_states"]), with_kwargs=True
        )
        for layer in layers
    ]
    try:
        with torch.inference_mode():
            model(input_ids=torch.as_tensor(spans.ids[None], device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    total = torch.zeros(len(spans.ids), dtype=torch.float64)
    with torch.inference_mode():
        for layer, states in zip(layers, hidden, strict=True):
            total += _layer(layer.self_attn, states[0]) / len(layers)
    inside = spans.document >= 0
    return np.bincount(spans.document[inside], weights=total.numpy()[inside], minlength=len(spans.counts))


def _layer(attention: Any, states: Any) -> Any:
    """(tokens,) column sums of the pseudo-attention, mean over heads."""
    import torch

    d = attention.head_dim
    query, key = attention.q_proj(states).unflatten(-1, (-1, d)), attention.k_proj(states).unflatten(-1, (-1, d))
    share = query.shape[1] // key.shape[1]
    total = torch.zeros(states.shape[0], dtype=torch.float64)
    for head in range(query.shape[1]):
        keys = key[:, head // share].float()
        for rows in query[:, head].float().split(_ROWS):
            total += (rows @ keys.T * d**-0.5).softmax(-1).sum(0).double().cpu() / query.shape[1]
    return total
