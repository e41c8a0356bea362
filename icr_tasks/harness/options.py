"""What a user may set with `--metadata`, checked before anything is loaded."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..checked import check
from ..context import thinking
from ..context.fit import RULES
from ..errors import IcrError, unknown
from ..kv import choose
from ..setting_options import split_task
from ..settings import KV_NATIVE, Setting, pieces
from .grading import GRADER_KEYS, Graders


class _Given(BaseModel):
    """The options of ours that are no setting and no grader, as they may come from a command line:
    `prepared=no`."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    prompt: str | None = None
    truncation: str | None = None
    overflow: str | None = None
    prepared: bool = True
    part: float | None = None
    allow_partial: bool | None = None
    questions_file: str | None = None
    embed_engine: str | None = None
    embed_url: str | None = None
    embed_limit: int | None = None
    embed_tokenizer: str | None = None
    embed_device: str | None = None
    rerank_url: str | None = None
    ask_url: str | None = None
    thinking: str | bool | None = None
    template_date: str | None = None
    system_role: str | None = None


EMBEDDING = tuple(
    name for name in _Given.model_fields if name.startswith("embed_") or name in ("rerank_url", "ask_url")
)  # how a retriever's models are run
OURS = (*_Given.model_fields, "setting", "tokenizer", "embedder")
ENVIRONMENT = "ICR_OPTIONS"  # options of a host that passes none, as JSON
_NEARLY = 0.8
_ENGINES = (
    "tokenizer",
    "base_url",
    "truncate",
    "truncation_side",
)  # arguments of lm-eval's models, not ours misspelt


@dataclass(frozen=True)
class Options:
    """Parsed options of one task."""

    setting: Setting
    prompt: str | None
    truncation: str | None = None
    overflow: str | None = None  # "truncate" or "skip"; None: as the data sheet says
    data: dict[str, Any] = field(default_factory=dict)
    prepared: bool = True  # use what `icr prepare` made
    embed: dict[str, Any] = field(default_factory=dict)  # engine and address of the retriever's embedder
    graders: Graders = Graders()  # judge and extractor
    part: float = 1.0  # share of the questions, the same ones for every task of a benchmark
    template_date: str | None = None  # what a chat template prints as today
    system_role: str | None = None  # where system text stands; None: where the template has a place for it

    @classmethod
    def parse(cls, metadata: Mapping[str, Any]) -> Options:
        """Raises IcrError for a misspelt key, an unknown setting or an unknown rule."""
        for key in set(metadata).difference(_ENGINES):
            known = [o for o in (*OURS, *GRADER_KEYS) if o != "tokenizer"]
            near = difflib.get_close_matches(key, known, n=1, cutoff=_NEARLY)
            if near and key not in known:
                raise IcrError(f"--metadata has {key!r}; did you mean {near[0]!r}?")
        given = check(_Given, {k: metadata[k] for k in _Given.model_fields if k in metadata}, "--metadata")
        setting = _with_engine(Setting.parse(_with_embedder(metadata)), metadata)
        if given.truncation is not None and given.truncation not in RULES:
            raise unknown("truncation", given.truncation, RULES)
        if given.overflow not in (None, "truncate", "skip"):
            raise unknown("overflow", str(given.overflow), ("truncate", "skip"))
        if given.part is not None and not 0 < given.part <= 1:
            raise IcrError(f"part {given.part:g}: a share of the questions, above 0 and at most 1")
        thinking.word(given.thinking)
        if given.system_role not in (None, "system", "user"):
            raise unknown("system_role", given.system_role, ("system", "user"))
        data = given.model_dump(include={"allow_partial", "questions_file"}, exclude_unset=True)
        embed = {k.removeprefix("embed_"): getattr(given, k) for k in EMBEDDING}
        return cls(
            setting,
            given.prompt,
            given.truncation,
            given.overflow,
            data,
            given.prepared,
            {name: value for name, value in embed.items() if value},
            Graders.parse(metadata),
            given.part or 1.0,
            given.template_date,
            given.system_role,
        )


def _with_embedder(metadata: Mapping[str, Any]) -> str:
    """The setting string with metadata's `embedder` written into it, where it has a retriever and names no
    other."""
    parts, embedder = pieces(str(metadata.get("setting", "full"))), metadata.get("embedder")
    retrieves = parts[0].startswith("rag") or (
        parts[0].startswith("route:") and Setting.parse(parts[0]).rag is not None
    )
    if embedder and retrieves and "embedder=" not in parts[0]:
        parts[0] += f",embedder={embedder}"
    return "+".join(parts)


def _with_engine(setting: Setting, metadata: Mapping[str, Any]) -> Setting:
    """An engine-side cache option makes a full-context run `kv:fp8`, `kv:topk@0.05`; a contradiction is
    refused."""
    if metadata.get("setting") and not setting.compressed and "kv" not in metadata and choose.asked():
        raise IcrError(
            f"setting {setting} was asked for, but {choose.VARIABLE}={os.environ[choose.VARIABLE]} makes "
            "vLLM (and icr-hf) "
            f"compress: unset {choose.VARIABLE}, or give the model argument kv=full"
        )
    setting = choose.agree(setting, choose.from_args(metadata))
    dtype = metadata.get("kv_cache_dtype")
    if dtype not in (None, "auto"):
        choose.check(str(dtype))
    if dtype in (None, "auto"):
        if setting.kv is not None and setting.kv.method in KV_NATIVE:
            raise IcrError(
                f"setting {setting} needs the engine's own option: --model vllm --model_args "
                f"...,kv_cache_dtype={setting.kv.method}"
            )
        return setting
    if setting.kind == "full":
        return Setting.parse(f"kv:{dtype}")
    if setting.kind == "kv" and setting.kv is None or setting.kv is not None and setting.kv.method != dtype:
        raise IcrError(f"setting {setting} contradicts kv_cache_dtype={dtype}; give only one of them")
    return setting


def host_options(task: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a host says beside `--metadata`: a setting after the task's name, and the variable ICR_OPTIONS.

    Raises IcrError where the name and `--metadata` name different settings, and for what is no JSON object.
    """
    text = os.environ.get(ENVIRONMENT) or "{}"
    try:
        found = json.loads(text)
    except ValueError as error:
        raise IcrError(f"{ENVIRONMENT}={text}: not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise IcrError(f'{ENVIRONMENT}={text}: give a JSON object, e.g. {{"tokenizer":"MODEL"}}')
    setting = split_task(task)[1]
    if setting is None:
        return found
    given = metadata.get("setting")
    if given is not None and Setting.parse(str(given)) != Setting.parse(setting):
        raise IcrError(
            f"{task} names a setting, and --metadata another one, {given!r}; give only one of them"
        )
    return {**found, "setting": setting}
