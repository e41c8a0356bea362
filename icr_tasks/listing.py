"""What an OpenAI-compatible server says of its models (`GET /v1/models`): the window, whose server it is, what the
model really is. The one reader, for everybody who asks a served model."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WINDOWS = ("max_model_len", "context_length", "max_context_length", "context_window", "max_seq_len")
_CONTINUE = ("vllm", "sglang")  # continue the final message of a chat, and take arguments for its template
CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}  # what a request says for that


@dataclass(frozen=True)
class Listing:
    """`window` in tokens, `owner` and `root` (the weights' name) where the server tells them. `name` is the entry's id,
    `weights` its root as told, also a local path, which stands in no record."""

    window: int | None = None
    owner: str | None = None
    root: str | None = None
    models: tuple[str, ...] = ()
    name: str | None = None
    weights: str | None = None

    @property
    def continues(self) -> bool:
        """Whether the server can continue a final message of the assistant."""
        return (self.owner or "").lower() in _CONTINUE

    def record(self) -> dict[str, Any]:
        """What was told, for the results file."""
        told = {"window": self.window, "owner": self.owner, "root": self.root}
        return {name: value for name, value in told.items() if value is not None}


class NoListing(Exception):
    """No list was read. `status` is the HTTP status of a refusal; None where nobody answered (`reason`)."""

    def __init__(self, reason: Any, status: int | None = None) -> None:
        super().__init__(str(reason))
        self.reason, self.status = reason, status


def fetch(
    root: str,
    model: str,
    *,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    timeout: float = 15.0,
    verify: bool | str = True,
) -> Listing:
    """The listing of `model` at `root` (up to /v1); empty where the reply is none. `verify`: whether, or by which
    file, certificates are checked.

    Raises NoListing where nobody answers, or the request is refused. A redirect is not followed.
    """
    request = urllib.request.Request(f"{root}/models{query}", headers=dict(headers or {}))
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(Stay, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=timeout) as response:
            return of(json.loads(response.read(1 << 22)), model)
    except urllib.error.HTTPError as error:
        raise NoListing(error, error.code) from None
    except (urllib.error.URLError, OSError) as error:
        raise NoListing(getattr(error, "reason", error)) from None
    except (ValueError, RecursionError):
        return Listing()


def of(body: Any, model: str) -> Listing:
    """A listing's JSON, for one model: by its name, by that of its weights, or the only one there is.

    >>> of({"data": [{"id": "m", "max_model_len": 4096, "owned_by": "vllm"}]}, "m").window
    4096
    """
    data = body.get("data") if isinstance(body, dict) else body
    entries = [e for e in data if isinstance(e, dict)] if isinstance(data, list) else []
    names = tuple(str(e.get("id")) for e in entries)
    mine = next((e for name in ("id", "root") for e in entries if model and e.get(name) == model), None)
    if mine is None and len(entries) == 1:  # a server of one model answers to any name
        mine = entries[0]
    if mine is None:
        return Listing(models=names)
    window = next((w for key in _WINDOWS if type(w := mine.get(key)) is int and w > 0), None)
    owner, root = mine.get("owned_by"), mine.get("root")
    root = root if isinstance(root, str) and root else None
    known = root is not None and root != model and not root.startswith(("/", ".", "~")) and "\\" not in root
    return Listing(
        window,
        owner if isinstance(owner, str) else None,
        root if known else None,
        names,
        model if root == model else str(mine.get("id")),  # named by its weights, whatever else it is called
        root,
    )


class Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is not followed: the key and the texts would go to a host that nobody named."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """None: the redirect is an HTTPError."""
        return None
