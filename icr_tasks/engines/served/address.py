"""Where a served model is and with which key: the address taken apart, credentials kept out of sight."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from ...credentials import Redactor, redact_url, secrets_in
from ...errors import IcrError
from .client import Server

_PATHS = ("/chat/completions", "/completions", "/models")


def root_of(base_url: str) -> str:
    """The address up to /v1, without credentials and query: what is shown, and what names the journal.

    Raises IcrError for anything that is not an http(s) address.
    """
    try:
        parts = urlsplit(base_url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise IcrError(f"base_url cannot be read ({error}); write it as http://localhost:8000/v1") from error
    if parts.scheme not in ("http", "https") or not host:
        raise IcrError(
            f"base_url {redact_url(base_url)!r} is not http(s); write it as http://localhost:8000/v1"
        )
    path = parts.path.rstrip("/")
    for end in _PATHS:
        path = path.removesuffix(end)
    host = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, f"{host}:{port}" if port else host, path, "", ""))


def key_of(given: str | None, env: str | None, base_url: str) -> str | None:
    """The key given, of the named variable, else $ICR_API_KEY; $OPENAI_API_KEY goes to OpenAI's own host
    alone."""
    if given:
        return str(given)
    if env:
        if not os.environ.get(env):
            raise IcrError("api_key_env names a variable that is not set; export it, or leave the option out")
        return os.environ[env]
    own = os.environ.get("ICR_API_KEY")
    return own or (
        os.environ.get("OPENAI_API_KEY") if urlsplit(base_url).hostname == "api.openai.com" else None
    )


def server_of(model: str, base_url: str, key: str | None, own: Mapping[str, Any]) -> Server:
    """The address taken apart: credentials into headers, the path up to /v1."""
    root, parts = root_of(base_url), urlsplit(base_url.strip())
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if parts.username is not None and not key:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    headers |= {str(k): str(v) for k, v in (own["header"] or {}).items()}
    redact = Redactor(key, *secrets_in({"url": base_url, "header": headers}))
    extra = {**(own["extra"] or {}), **({"seed": int(own["seed"])} if own["seed"] is not None else {})}
    return Server(root, root, model, headers, redact, dict(parse_qsl(parts.query)), extra=extra, asked=extra)
