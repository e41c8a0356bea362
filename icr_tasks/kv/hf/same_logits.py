"""The identity check: a reader of every key must give the logits of the model's own attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import IcrError
from ..topk import TopK
from . import attention, decode

SEED_TOKENS, STEPS, LONGEST = 64, 3, 1100  # of the identity check: prompt, decode steps, longest prompt
TOLERANCE = {
    torch.float32: 1e-4,
    torch.float16: 0.02,
    torch.bfloat16: 0.1,
}  # of the largest logit, at least 1


@torch.inference_mode()
def identity(model: Any, own: str) -> None:
    """Raises IcrError where a reader of every key does not give the logits of the model's `own` attention: then its
    attention does something (a soft cap, a bias, layers of a kind unknown here) that the methods would leave out."""
    config, device = model.config.get_text_config(), model.device
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None) or 0
    limit = getattr(config, "max_position_embeddings", LONGEST) - STEPS
    n = max(8, min(max(SEED_TOKENS, window + 16), LONGEST, limit))
    ids = torch.randint(0, config.vocab_size, (n + STEPS,), generator=torch.Generator().manual_seed(0))
    model.set_attn_implementation(own)
    try:
        dense = _stock(model, ids[None].to(device), n)
    finally:
        model.set_attn_implementation(attention.register())
    whole = TopK(name="topk", budget=1.0, frees=False, sink=4, window=16, update=1 << 30)
    forced = ids[n:].tolist()
    job = decode.Job([ids[:n].tolist()], STEPS + 1, frozenset(), forced=[*forced, 0], keep_logits=True)
    mine = torch.stack(decode.generate(model, job, whole)[0].logits)
    off = float((mine - dense).abs().max())
    allowed = TOLERANCE.get(model.dtype, 1e-4) * max(1.0, float(dense.abs().max()))
    if not off <= allowed:  # also a NaN
        raise IcrError(
            f"compressed settings cannot run on {config.model_type}: reading every key gives logits that differ from the "
            f"model's own by {off:.2g} (allowed: {allowed:.2g}), so its attention is not one the methods are defined for; "
            "use setting full, or kv:native"
        )


def _stock(model: Any, ids: Tensor, n: int) -> Tensor:
    """Logits after the prompt and after each forced token, from transformers alone."""
    from transformers import DynamicCache

    cache, out = DynamicCache(config=model.config.get_text_config()), []
    for at, end in [(0, n), *((t, t + 1) for t in range(n, ids.shape[1]))]:
        positions = torch.arange(at, end, device=ids.device)[None]
        done = model(
            input_ids=ids[:, at:end],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        out.append(done.logits[0, -1].float().cpu())
    return torch.stack(out)
