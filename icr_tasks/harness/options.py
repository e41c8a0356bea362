"""What a user may set with `--metadata`, checked before anything is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..context.fit import RULES
from ..errors import IcrError, unknown
from ..kv import choose
from ..settings import KV_NATIVE, Setting
from .grading import GRADER_KEYS, Graders

EMBEDDING = (
    "embed_engine",
    "embed_url",
    "embed_limit",
    "embed_tokenizer",
)  # how a retriever's models are run
OURS = (
    "setting",
    "prompt",
    "truncation",
    "overflow",
    "allow_partial",
    "tokenizer",
    "questions_file",
    "prepared",
    "embedder",
    *EMBEDDING,
)
_NEARLY = 0.8


@dataclass(frozen=True)
class Options:
    """Parsed options of one task."""

    setting: Setting
    prompt: str | None
    truncation: str | None = None
    overflow: str = "truncate"
    data: dict[str, Any] = field(default_factory=dict)
    prepared: bool = True  # use what `icr prepare` made
    embed: dict[str, Any] = field(default_factory=dict)  # engine and address of the retriever's embedder
    graders: Graders = Graders()  # judge and extractor

    @classmethod
    def parse(cls, metadata: Mapping[str, Any]) -> Options:
        """Raises IcrError for a misspelt key, an unknown setting or an unknown rule."""
        for key in metadata:
            known = [o for o in (*OURS, *GRADER_KEYS) if o != "tokenizer"]
            near = difflib.get_close_matches(key, known, n=1, cutoff=_NEARLY)
            if near and key not in (*known, "tokenizer"):
                raise IcrError(f"--metadata has {key!r}; did you mean {near[0]!r}?")
        setting = _with_engine(Setting.parse(_with_embedder(metadata)), metadata)
        truncation, overflow = metadata.get("truncation"), str(metadata.get("overflow", "truncate"))
        if truncation is not None and truncation not in RULES:
            raise unknown("truncation", str(truncation), RULES)
        if overflow not in ("truncate", "skip"):
            raise unknown("overflow", overflow, ("truncate", "skip"))
        prompt = metadata.get("prompt")
        data = {k: metadata[k] for k in ("allow_partial", "questions_file") if k in metadata}
        embed = {k.removeprefix("embed_"): metadata[k] for k in EMBEDDING if metadata.get(k)}
        ahead = bool(metadata.get("prepared", True))
        return cls(
            setting,
            None if prompt is None else str(prompt),
            truncation,
            overflow,
            data,
            ahead,
            embed,
            Graders.parse(metadata),
        )


def _with_embedder(metadata: Mapping[str, Any]) -> str:
    """The setting string with metadata's `embedder` written into it, where it has a retriever and names no
    other."""
    text, embedder = str(metadata.get("setting", "full")), metadata.get("embedder")
    return (
        f"{text},embedder={embedder}"
        if embedder and text.startswith("rag") and "embedder=" not in text
        else text
    )


def _with_engine(setting: Setting, metadata: Mapping[str, Any]) -> Setting:
    """An engine-side cache option makes a full-context run `kv:fp8`, `kv:topk@0.05`; a contradiction is
    refused."""
    setting = choose.agree(setting, choose.from_args(metadata))
    dtype = metadata.get("kv_cache_dtype")
    if dtype not in (None, "auto"):
        choose.check(str(dtype))
    if dtype in (None, "auto"):
        if setting.kv is not None and setting.kv.method in KV_NATIVE:
            raise IcrError(
                f"setting {setting} needs the engine's own option: --model vllm --model_args ...,kv_cache_dtype={setting.kv.method}"
            )
        return setting
    if setting.kind == "full":
        return Setting.parse(f"kv:{dtype}")
    if setting.kv is not None and setting.kv.method != dtype:
        raise IcrError(f"setting {setting} contradicts kv_cache_dtype={dtype}; give only one of them")
    return setting
