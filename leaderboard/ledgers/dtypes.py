"""Names of dtypes."""

from __future__ import annotations

from typing import Any

_DTYPES = {"half": "float16", "float": "float32", "fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def dtype_name(value: Any) -> str | None:
    """One name for a model's dtype in any of its spellings; None where it is left open ("auto")."""
    text = str(value or "").removeprefix("torch.")
    return _DTYPES.get(text, text) if text not in ("", "auto") else None
