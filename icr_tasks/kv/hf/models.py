"""Which transformers models a compressed setting may run on: any decoder whose attention goes through AttentionInterface
and that passes an identity check, compressed in its full-attention layers only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import IcrError
from .cache import full_layers

SEED_TOKENS, STEPS, LONGEST = 64, 3, 1100  # of the identity check: prompt, decode steps, longest prompt
TOLERANCE = {
    torch.float32: 1e-4,
    torch.float16: 0.02,
    torch.bfloat16: 0.1,
}  # of the largest logit, at least 1


def check(config: Any, what: str) -> None:
    """Raises IcrError when no layer of the model has keys that a method could choose from. `what` names the setting."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    kind = getattr(config, "model_type", "?")
    if getattr(config, "kv_lora_rank", None):
        raise IcrError(
            f"{what} cannot run on {kind}: its latent attention (MLA) caches no keys to choose from; use "
            "setting full, or kv:native to record it as it is"
        )
    if getattr(config, "num_kv_shared_layers", 0):
        raise IcrError(
            f"{what} cannot run on {kind}: some of its layers read the cache of others, which no count here covers; use "
            "setting full, or kv:native"
        )
    if not full_layers(config):
        raise IcrError(
            f"{what} cannot run on {kind}: none of its layers has full attention (window, chunk or linear in every one), "
            "so there is nothing to compress; use setting full, or kv:native"
        )


def layer_types(config: Any) -> dict[str, int]:
    """How many layers of each kind a model has."""
    config = config.get_text_config()
    found: dict[str, int] = {}
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        full = set(full_layers(config))
        kinds = [
            "full_attention" if i in full else "sliding_attention" for i in range(config.num_hidden_layers)
        ]
    for kind in kinds:
        found[kind] = found.get(kind, 0) + 1
    return found


def hybrid(config: Any) -> bool:
    """Whether some layers are no full attention: then sequences run one at a time."""
    config = config.get_text_config()
    return len(full_layers(config)) < config.num_hidden_layers


def linear(config: Any) -> bool:
    """Whether some layers carry a state instead of keys: prompts then go through in one piece."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    layers = DynamicCache(config=config.get_text_config()).layers
    return any(not isinstance(layer, DynamicLayer) for layer in layers)


@torch.inference_mode()
def identity(model: Any, own: str) -> None:
    """Raises IcrError where a reader of every key does not give the logits of the model's `own` attention: then its
    attention does something (a soft cap, a bias, layers of a kind unknown here) that the methods would leave out."""
    from ..topk import TopK
    from . import attention, decode

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
