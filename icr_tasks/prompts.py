"""Prompt tables that a benchmark may take over: `icr.prompts.HELMET` (the paper's five formats and its
code's)."""

from __future__ import annotations

from .benchmarks.base import Prompt
from .benchmarks.paper_prompts import PROMPTS

HELMET: dict[str, Prompt] = PROMPTS
__all__ = ["HELMET", "Prompt"]
