"""Which transformers models a compressed setting may run on: any decoder whose attention goes through AttentionInterface
and that passes an identity check, compressed in its full-attention layers only."""

from __future__ import annotations

from typing import Any

from ...errors import IcrError
from ...settings import BY_DESIGN
from .. import choose, make
from ..base import Method
from .cache import full_layers


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
    if capped(config):
        raise IcrError(
            f"{what} cannot run on {kind}: its attention caps its scores (attn_logit_softcapping), which no method does; use "
            "setting full"
        )
    if not full_layers(config):
        raise IcrError(
            f"{what} cannot run on {kind}: none of its layers has full attention (window, chunk or linear in every one), "
            "so there is nothing to compress; use setting full, or kv:native"
        )


def refuse(setting: Any, config: Any) -> None:
    """Raises IcrError for a setting that a model of this configuration cannot run: known before its weights load."""
    refuse_native(setting, config, str(config.model_type))
    if not setting.compressed:
        return
    kv = setting.kv
    if kv is None or kv.method in choose.native():
        raise IcrError(f"setting {setting} is an option of vLLM; use --model vllm, or another kv method here")
    check(config, f"setting {setting}")
    knobs = {k: v for k, v in kv.extra if k not in ("split", "prefill")}
    method = make(str(kv.method), kv.amount if isinstance(kv.amount, int | float) else None, knobs)
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    method.fits(len(full_layers(text)), int(heads))
    method.ask(int(kv.params.get("split") == "query-agnostic"))
    repeatable(method, config)


def repeatable(method: Method, config: Any) -> None:
    """Raises IcrError where a method repeats the prompt and the model could not forget the repetition."""
    if method.repeats and hybrid(config):
        raise IcrError(
            f"kv:{method.name} repeats the prompt, which layers without full attention cannot undo; take kv:snapkv or "
            "kv:keydiff"
        )


def refuse_in_vllm(setting: Any, config: Any) -> None:
    """Raises IcrError for a compressed setting on a model whose layers our vLLM backend does not take."""
    check(config, f"setting {setting}")
    if kinds := by_design(config):
        named = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        raise IcrError(
            f"setting {setting} needs full attention in every layer in vLLM, and {config.model_type} has {named}: use "
            "--model icr-hf, which compresses the full-attention layers alone"
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


def by_design(config: Any) -> dict[str, int] | None:
    """Layers by kind of a model whose own cache is smaller than a key and a value for each token and layer
    (windows, chunks, linear states, latent attention, layers that share a cache); None for any other."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    if getattr(config, "kv_lora_rank", None):
        return {"latent_attention": int(config.num_hidden_layers)}
    found = layer_types(config)
    if shared := int(getattr(config, "num_kv_shared_layers", 0) or 0):
        found["shared"] = shared
    return found if set(found) != {"full_attention"} else None


def refuse_native(setting: Any, config: Any, name: str) -> None:
    """IcrError for kv:native of a model that keeps every key in every layer."""
    part = setting if setting.kind == "kv" else setting.then
    if part is not None and part.method == BY_DESIGN and by_design(config) is None:
        raise IcrError(
            f"setting {setting} is for models that compress by design; {name} keeps every key in every layer: use "
            f"{'full' if setting.then is None else setting.context}"
        )


def hybrid(config: Any) -> bool:
    """Whether some layers are no full attention: then sequences run one at a time."""
    config = config.get_text_config()
    return len(full_layers(config)) < config.num_hidden_layers


def one_piece(config: Any) -> bool:
    """Whether prompts must go through in one piece: where layers carry a state, and where the rotation of a token depends
    on how long the pass is that it comes in (`longrope`, `dynamic`), so that pieces would not fit each other."""
    return linear(config) or _moving(config.get_text_config())


def _moving(config: Any) -> bool:
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    each = [
        given,
        *(one for one in given.values() if isinstance(one, dict)),
    ]  # one for all layers, or one a kind
    return any((one.get("rope_type") or one.get("type")) in ("longrope", "dynamic") for one in each)


def capped(config: Any) -> bool:
    """Whether attention caps its scores (Gemma 2), which transformers' sdpa leaves out without a word."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return bool(getattr(config, "attn_logit_softcapping", None))


def linear(config: Any) -> bool:
    """Whether some layers carry a state instead of keys."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    layers = DynamicCache(config=config.get_text_config()).layers
    return any(not isinstance(layer, DynamicLayer) for layer in layers)
