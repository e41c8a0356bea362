"""HELMET-RAG's prompts without `official`, whose demonstrations are HELMET's own questions."""

from __future__ import annotations

from ..helmet_rag import prompts as helmet

PROMPTS = {name: prompt for name, prompt in helmet.PROMPTS.items() if name != "official"}
