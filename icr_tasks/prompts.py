"""Prompt tables that a benchmark may take over: `icr.prompts.HELMET` (the paper's five formats and its code's)."""

from __future__ import annotations

from .benchmarks.base import Prompt
from .benchmarks.helmet_rag import PROMPTS

HELMET: dict[str, Prompt] = {name: prompt for name, prompt in PROMPTS.items() if name != "official"}
__all__ = ["HELMET", "Prompt"]
