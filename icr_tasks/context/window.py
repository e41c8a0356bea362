"""How many tokens the evaluated model takes, and who says so.

An engine's default is no fact: lm-eval's API engines call every model 2047 tokens long, and its transformers
engine 2048 where a configuration says nothing. A served model's window is asked of the server (`/v1/models` of
vLLM and SGLang says `max_model_len`); where nobody knows it, nothing is cut and the run says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .. import hub, listing
from ..credentials import redact_url
from ..errors import IcrError
from ..listing import Listing

log = logging.getLogger("icr_tasks")
_NAMES = ("max_model_len", "max_length")  # in the order in which they count
_ENDS = ("/chat/completions", "/completions", "/messages", "/responses")
_TIMEOUT = 5.0  # seconds
_PLACEHOLDER = 2047


@dataclass(frozen=True)
class Window:
    """`size` in tokens, prompt and answer together; None where nobody knows. `asked`: the user named it."""

    size: int | None
    source: str
    asked: bool = False


def find(metadata: Mapping[str, Any], lm: Any = None) -> Window:
    """The window by the user, by the server, by the loaded model, by its configuration, in this order."""
    for name in _NAMES:
        if metadata.get(name):
            return Window(_whole(name, metadata[name]), f"{name}=", True)
    if url := address(metadata, lm):
        told = ask(metadata, lm)
        where = f"the server at {redact_url(url)}"
        return Window(told.window, where if told.window else f"{where} does not say it")
    if hasattr(lm, "_create_payload"):  # lm-eval's API engines: their own default, less one
        told_by_user = lm.max_length != _PLACEHOLDER
        return Window(
            lm.max_length if told_by_user else None, "max_length=" if told_by_user else "nobody says it"
        )
    if isinstance(found := getattr(lm, "max_length", None), int):
        return Window(None, "nobody says it") if _default(lm, found) else Window(found, "the model")
    return Window(_configured(metadata), "the model's configuration")


def address(metadata: Mapping[str, Any], lm: Any = None) -> str | None:
    """Where a served model answers; None for a model in this process."""
    url = metadata.get("base_url") or getattr(lm, "base_url", None)
    return str(url) if url else None


def ask(metadata: Mapping[str, Any], lm: Any = None) -> Listing:
    """What the server's list of models says; nothing where it has none, or does not answer."""
    if isinstance(told := getattr(lm, "listing", None), Listing):  # icr-api has asked already
        return told
    url = address(metadata, lm)
    if url is None:
        return Listing()
    model = metadata.get("model") or metadata.get("pretrained") or getattr(lm, "model", None)
    try:
        headers = metadata.get("header") or getattr(lm, "header", None)
    except ValueError:  # lm-eval's engine has no key yet, and says so when it sends
        headers = None
    verify = str(metadata.get("verify_certificate", True)).lower() not in ("false", "0")
    pairs = tuple(sorted(headers.items())) if isinstance(headers, Mapping) else ()
    return _ask(url, str(model or ""), pairs, str(metadata.get("ca_cert_path") or "") or verify)


@lru_cache(maxsize=32)
def _ask(url: str, model: str, headers: tuple[tuple[str, str], ...], verify: bool | str) -> Listing:
    head, mark, query = url.partition("?")
    root = next((head.removesuffix(end) for end in _ENDS if head.endswith(end)), head.rstrip("/"))
    try:
        return listing.fetch(
            root, model, query=mark + query, headers=dict(headers), timeout=_TIMEOUT, verify=verify
        )
    except (listing.NoListing, OSError, ValueError) as error:  # or an address, or certificates, that are none
        log.debug("no list of models at %s: %s", redact_url(root), error)
        return Listing()


def _whole(name: str, value: Any) -> int:
    try:
        size = int(value)
    except (TypeError, ValueError):
        size = 0
    if size <= 0:
        raise IcrError(f"{name}={value}: give a whole number of tokens, e.g. {name}=131072")
    return size


def _default(lm: Any, found: int) -> bool:
    """Whether a loaded model's length is its engine's default, which nothing of the model says."""
    if found != getattr(lm, "_DEFAULT_MAX_LENGTH", None) or getattr(lm, "_max_length", None):
        return False
    engine = getattr(getattr(lm, "model", None), "llm_engine", None)
    if engine is not None:  # vLLM reads the model itself
        return False
    from lm_eval.models.utils import resolve_max_length

    config = getattr(lm, "_config", None) or getattr(getattr(lm, "model", None), "config", None)
    return resolve_max_length(config, getattr(lm, "tokenizer", None), default=-1) == -1


def _configured(metadata: Mapping[str, Any]) -> int | None:
    name = metadata.get("pretrained")
    if not name:
        return None
    here = hub.local(str(name), "model", metadata.get("revision"))
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            name,
            revision=metadata.get("revision"),
            trust_remote_code=bool(metadata.get("trust_remote_code")),
            local_files_only=here,
        )
    except (OSError, ValueError) as error:
        raise IcrError(
            f"cannot read the context window of {name!r} ({error}); pass max_model_len=N in --model_args"
        ) from error
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(config, "max_position_embeddings", None)
