"""Ways to run an embedder. Each entry of ENGINES turns (place, revision, options) into a `Running` one."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ... import hub, listing
from ...errors import IcrError, install_hint, unknown

Encode = Callable[[list[str]], Any]


@dataclass(frozen=True)
class Running:
    """A loaded embedder: texts -> vectors, the tokens it reads as the loaded model itself says (None: unknown), and
    sentence-transformers' model where that runs it."""

    encode: Encode
    reads: int | None = None
    model: Any = None


def load(options: dict[str, Any], place: str, revision: str | None) -> Running:
    """The embedder run by `options["engine"]` (default: st). IcrError when it cannot be loaded."""
    name = str(options.get("engine", "openai" if options.get("url") else "st"))
    if name not in ENGINES:
        raise unknown("embedding engine", name, ENGINES)
    try:
        made = ENGINES[name](place, revision, options)
    except IcrError:
        raise
    except (
        Exception
    ) as error:  # hub, torch and vLLM raise many types; all mean that the embedder does not load
        raise IcrError(
            f"embedder {place!r} cannot be loaded by {name}: {type(error).__name__}: {error}\n"
            "  it needs weights and a tokenizer; give --embedder a hub id or a complete folder, or use bm25"
        ) from error
    return made if isinstance(made, Running) else Running(made)


def sentence_transformers() -> Any:
    """The package. IcrError with the command that installs it."""
    try:
        import sentence_transformers as package
    except ImportError as error:
        raise IcrError(f"this retriever needs sentence-transformers: {install_hint('rag')}") from error
    return package


def knows_words(tokenizer: Any, place: str) -> None:
    """IcrError for a folder without a tokenizer: transformers invents one for which all texts look alike."""
    if tokenizer("retrieval")["input_ids"] == tokenizer("word")["input_ids"]:
        raise IcrError(f"{place!r} has no tokenizer (or one that knows no words); give a complete folder")


def _st(place: str, revision: str | None, options: dict[str, Any]) -> Running:
    here = hub.local(place, "embedder", revision)
    model = sentence_transformers().SentenceTransformer(
        place, revision=revision, device=hub.checked(options.get("device")), local_files_only=here
    )
    knows_words(model.tokenizer, f"embedder {place}")
    batch = int(options.get("batch", 32))

    def encode(texts: list[str]) -> Any:
        # "" is a prompt of its own: without it a model's default prompt would be added to ours.
        return model.encode(
            texts, prompt="", batch_size=batch, convert_to_numpy=True, show_progress_bar=False
        )

    reads = model.max_seq_length
    return Running(
        encode, int(reads) if isinstance(reads, int | float) and reads < 1_000_000 else None, model
    )


def _vllm(place: str, revision: str | None, options: dict[str, Any]) -> Running:
    hub.local(place, "embedder", revision)
    from vllm import LLM

    ours = ("engine", "url", "batch", "device", "limit", "tokenizer")
    extra = {k: v for k, v in options.items() if k not in ours}
    model = LLM(model=place, revision=revision, runner="pooling", **extra)
    reads = getattr(getattr(model, "model_config", None), "max_model_len", None)
    return Running(lambda texts: [out.outputs.embedding for out in model.embed(texts, use_tqdm=False)], reads)


def _openai(place: str, revision: str | None, options: dict[str, Any]) -> Running:
    try:
        from openai import DefaultHttpxClient, OpenAI
    except ImportError as error:
        raise IcrError(f"an embedding server needs the client openai: {install_hint('judge')}") from error
    if not options.get("url"):
        raise IcrError('an embedding server needs its address: "embed_url":"http://host:8000/v1"')
    client = OpenAI(
        base_url=str(options["url"]),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        http_client=DefaultHttpxClient(follow_redirects=False),  # to a host that nobody named
    )
    batch = int(options.get("batch", 64))

    def encode(texts: list[str]) -> list[list[float]]:
        out = []
        for start in range(0, len(texts), batch):
            part = texts[start : start + batch]
            try:
                answer = client.embeddings.create(model=place, input=part, encoding_format="float")
            except Exception as error:  # connection, authorisation, size: the client's own words say which
                raise IcrError(f"embedding server {options['url']}: {error}") from error
            if len(answer.data) != len(part):
                raise IcrError(
                    f"embedding server {options['url']}: {len(answer.data)} vectors for {len(part)} texts"
                )
            out += [row.embedding for row in sorted(answer.data, key=lambda row: row.index)]
        return out

    return Running(encode)


ENGINES: dict[str, Callable[[str, str | None, dict[str, Any]], Any]] = {
    "st": _st,
    "vllm": _vllm,
    "openai": _openai,
}


def ask(url: str, path: str) -> Any:
    """JSON of an address below a server's /v1, None when it has none (the server then leaves that unsaid)."""
    base = url.rstrip("/")
    if path.startswith("../"):
        base, path = base.removesuffix("/v1"), path.removeprefix("../")
    request = urllib.request.Request(f"{base}/{path}")
    if key := os.environ.get("OPENAI_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.build_opener(listing.Stay).open(request, timeout=20) as answer:
            found = json.loads(answer.read(1 << 20))
    except (OSError, ValueError):  # no such page, not JSON: another kind of server
        return None
    return found if isinstance(found, dict) else None
