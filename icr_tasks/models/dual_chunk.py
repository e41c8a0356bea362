"""Models trained with dual-chunk attention (Qwen2.5-1M): vLLM has no such backend any more, so it is switched off, openly.

Without it the model uses plain rotary positions, which are valid up to the length it was trained on before; longer
windows are refused rather than answered wrongly.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..errors import IcrError

log = logging.getLogger("icr_tasks")
KEY = "dual_chunk_attention_config"
_TRAINED = 262144  # Qwen2.5-1M, when its config does not say


def switch_off(args: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Change engine arguments in place for such a model; returns what was changed, for the record, or None.

    `config` is the model's config.json. Raises IcrError when `max_model_len` asks for more than plain positions give.
    """
    found = config.get(KEY)
    if not found:
        return None
    limit = int(found.get("original_max_position_embeddings") or _TRAINED)
    asked = args.get("max_model_len") or args.get("max_length")
    if asked and int(asked) > limit:
        raise IcrError(
            f"this model needs dual-chunk attention beyond {limit} tokens, which vLLM does not have; set max_model_len={limit}"
        )
    args["hf_overrides"] = {**(args.get("hf_overrides") or {}), KEY: None}
    if not asked:
        args["max_model_len"] = limit
    log.warning("dual-chunk attention is switched off: plain positions, usable up to %d tokens", limit)
    return {"dual_chunk_attention": "off", "usable_tokens": limit}


def config_of(pretrained: str, revision: str | None = None) -> dict[str, Any]:
    """config.json of a folder or hub id; empty when it cannot be read (the engine will say why)."""
    from transformers import PretrainedConfig

    try:
        return PretrainedConfig.get_config_dict(pretrained, revision=revision)[0]
    except OSError as error:
        log.debug("no config of %s: %s", pretrained, error)
        return {}
