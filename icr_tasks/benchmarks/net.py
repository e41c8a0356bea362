"""Open what is to be fetched: by https, or from this machine."""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from ..credentials import redact_text
from ..errors import IcrError

_SECONDS = 60


def endpoint() -> str:
    """The hub: `$HF_ENDPOINT`, default the public one."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def secure(url: str) -> str:
    """The address itself. Raises IcrError for one that anybody on the way could answer: not https, and not on
    this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _loopback(parts.hostname or "")):
        return url
    raise IcrError(f"{redact_text(url)} is not https; use an https address or a folder (--from)")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Https(urllib.request.HTTPRedirectHandler):
    """A server may send us elsewhere, but not to an address without https; the token stays at the hub."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request of the new address."""
        made = super().redirect_request(req, fp, code, msg, headers, secure(newurl))
        if made is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            made.remove_header("Authorization")
        return made


def open_at(url: str, start: int = 0) -> Any:
    """A URL or a local path, opened at byte `start`. The token is sent to the hub only and never shown."""
    if "://" not in url:
        file = open(url, "rb")  # noqa: SIM115  (the caller closes it)
        file.seek(start)
        return file
    headers = {"User-Agent": "icr-tasks"} | ({"Range": f"bytes={start}-"} if start else {})
    if (token := os.environ.get("HF_TOKEN")) and url.startswith(f"{endpoint()}/"):
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(secure(url), headers=headers)
    return urllib.request.build_opener(_Https).open(request, timeout=_SECONDS)
