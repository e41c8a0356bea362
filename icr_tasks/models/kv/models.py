"""Which transformers models a compressed setting may run on, and why not the others."""

from __future__ import annotations

from typing import Any

from ...errors import IcrError

# Architectures with plain grouped-query attention through AttentionInterface, each tested with random weights.
ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "glm", "phi3")


def check(config: Any, what: str) -> None:
    """Raises IcrError when the model's attention is not one the methods are defined for. `what` names the setting."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    kind = getattr(config, "model_type", "?")
    if getattr(config, "kv_lora_rank", None):
        raise IcrError(
            f"{what} cannot run on {kind}: its latent attention (MLA) caches no keys to choose from; use setting full"
        )
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or [])
    if layers - {"full_attention"} or (window and not layers and getattr(config, "use_sliding_window", True)):
        shape = (
            f"sliding_window={window}" if window else f"layers of type {', '.join(sorted(layers - {'full_attention'}))}"
        )
        raise IcrError(
            f"{what} cannot run on {kind} with {shape}: budgets and bytes are defined for full attention in every layer; "
            "use setting full or a model without a sliding window"
        )
    if kind not in ARCHITECTURES:
        raise IcrError(f"{what} is not tested on model type {kind!r}; tested: {', '.join(ARCHITECTURES)}")
