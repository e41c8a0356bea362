"""Ways to run an embedder. Each entry of ENGINES turns (place, revision, options) into a function texts -> vectors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ...errors import IcrError, unknown

Encode = Callable[[list[str]], Any]


def load(options: dict[str, Any], place: str, revision: str | None) -> Encode:
    """The encoder named by `options["engine"]` (default: st). IcrError when it cannot be loaded."""
    name = str(options.get("engine", "openai" if options.get("url") else "st"))
    if name not in ENGINES:
        raise unknown("embedding engine", name, ENGINES)
    try:
        return ENGINES[name](place, revision, options)
    except IcrError:
        raise
    except Exception as error:  # hub, torch and vLLM raise many types; all mean that the embedder does not load
        raise IcrError(
            f"embedder {place!r} cannot be loaded by {name}: {type(error).__name__}: {error}\n"
            "  it needs weights and a tokenizer; give --embedder a hub id or a complete folder, or use bm25"
        ) from error


def _st(place: str, revision: str | None, options: dict[str, Any]) -> Encode:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise IcrError("retriever 'dense' needs sentence-transformers: pip install 'icr-tasks[rag]'") from error
    model = SentenceTransformer(place, revision=revision, device=options.get("device"))
    # For a folder without one, transformers invents a tokenizer that knows no word: all texts would look alike.
    if model.tokenizer("retrieval")["input_ids"] == model.tokenizer("word")["input_ids"]:
        raise IcrError(f"embedder {place!r} has no tokenizer (or one that knows no words); give a complete folder")
    batch = int(options.get("batch", 32))
    return lambda texts: model.encode(texts, batch_size=batch, convert_to_numpy=True, show_progress_bar=False)


def _vllm(place: str, revision: str | None, options: dict[str, Any]) -> Encode:
    from vllm import LLM

    extra = {k: v for k, v in options.items() if k not in ("engine", "url", "batch", "device")}
    model = LLM(model=place, revision=revision, runner="pooling", **extra)
    return lambda texts: [out.outputs.embedding for out in model.embed(texts, use_tqdm=False)]


def _openai(place: str, revision: str | None, options: dict[str, Any]) -> Encode:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise IcrError("an embedding server needs the client: pip install 'icr-tasks[judge]' (openai)") from error
    if not options.get("url"):
        raise IcrError('an embedding server needs its address: "embed_url":"http://host:8000/v1"')
    client = OpenAI(base_url=str(options["url"]), api_key=os.environ.get("OPENAI_API_KEY", "none"))
    batch = int(options.get("batch", 64))

    def encode(texts: list[str]) -> list[list[float]]:
        out = []
        for start in range(0, len(texts), batch):
            part = texts[start : start + batch]
            try:
                answer = client.embeddings.create(model=place, input=part, encoding_format="float")
            except Exception as error:  # connection, authorisation, size: the client's own words say which
                raise IcrError(f"embedding server {options['url']}: {error}") from error
            out += [row.embedding for row in sorted(answer.data, key=lambda row: row.index)]
        return out

    return encode


ENGINES: dict[str, Callable[[str, str | None, dict[str, Any]], Encode]] = {"st": _st, "vllm": _vllm, "openai": _openai}
