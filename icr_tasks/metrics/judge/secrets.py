"""Keep keys and passwords out of messages, logs, stores and results."""

from __future__ import annotations

import logging
import os
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit, urlunsplit

from ...credentials import Redactor as Redactor
from ...credentials import redact_url as redact_url
from ...errors import IcrError

DEFAULT_KEY_ENV = "ICR_JUDGE_API_KEY"


def split_url(url: str) -> tuple[str, str | None]:
    """(address without user name, password and slash at the end; HTTP Basic header value or None).

    Raises IcrError for anything that is not an http(s) address.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise IcrError(
            f"the judge address cannot be read ({error}); write it as http://localhost:8001/v1"
        ) from error
    if parts.scheme not in ("http", "https") or not host:
        raise IcrError(
            f"the judge address {redact_url(url)!r} is not http(s); write it as http://localhost:8001/v1"
        )
    host = f"[{host}]" if ":" in host else host
    bare = urlunsplit(
        (parts.scheme, f"{host}:{port}" if port else host, parts.path.rstrip("/"), parts.query, "")
    )
    if parts.username is None and parts.password is None:
        return bare, None
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return bare, "Basic " + b64encode(pair.encode()).decode()


def api_key(env: str | None, given: str | None = None, default: str = DEFAULT_KEY_ENV) -> str | None:
    """The key from the argument or the named environment variable; IcrError when a named variable is not
    set."""
    if given:
        return str(given)
    if env and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,60}", str(env)):  # perhaps the key itself: not repeated
        raise IcrError("api_key_env must be the name of an environment variable, such as ICR_JUDGE_API_KEY")
    found = os.environ.get(env or default)
    if env and not found:
        raise IcrError(f"api_key_env names {env}, which is not set; export it, or leave the option out")
    return found or None


@contextmanager
def quiet_http() -> Iterator[None]:
    """HTTP client logs show whole addresses, keys in the query included: only their warnings pass."""
    loggers = [logging.getLogger(name) for name in ("httpx", "httpx2", "httpcore", "httpcore2", "openai")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
