"""What a server says of its models (`GET /v1/models`): the window, whose server it is, what the model really
is."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from .client import Server, Unreachable

_WINDOWS = ("max_model_len", "context_length", "max_context_length", "context_window")
_CONTINUE = ("vllm", "sglang")  # continue the final message of a chat when they are told to


@dataclass(frozen=True)
class Listing:
    """`window` in tokens, `owner` and `root` (the weights' name) where the server tells them."""

    window: int | None = None
    owner: str | None = None
    root: str | None = None
    models: tuple[str, ...] = ()

    @property
    def continues(self) -> bool:
        """Whether the server can continue a final message of the assistant."""
        return (self.owner or "").lower() in _CONTINUE

    def record(self) -> dict[str, Any]:
        """What was told, for the results file."""
        told = {"window": self.window, "owner": self.owner, "root": self.root}
        return {name: value for name, value in told.items() if value is not None}


def listing(server: Server, timeout: float = 15.0) -> Listing:
    """The server's listing of this model; empty where it has none.

    Raises Unreachable when nobody is there, or the key is refused: before anything is built.
    """
    query = "?" + urllib.parse.urlencode(dict(server.query)) if server.query else ""
    request = urllib.request.Request(f"{server.root}/models{query}", headers=dict(server.headers))
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=timeout) as response:
            body = json.loads(response.read(1 << 22))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise Unreachable(
                f"{server.shown} refuses the key (HTTP {error.code}); set $ICR_API_KEY, or api_key_env=NAME"
            ) from None
        return Listing()
    except (urllib.error.URLError, OSError) as error:
        why = server.redact(getattr(error, "reason", error))
        raise Unreachable(f"no server at {server.shown} ({why}); start it, or correct base_url") from None
    except (ValueError, RecursionError):
        return Listing()
    data = body.get("data") if isinstance(body, dict) else body
    entries = [e for e in data if isinstance(e, dict)] if isinstance(data, list) else []
    names = tuple(str(e.get("id")) for e in entries)
    mine = next((e for e in entries if e.get("id") == server.model), None)
    if not server.model and len(entries) == 1:
        mine = entries[0]
    if mine is None:
        return Listing(models=names)
    window = next((w for key in _WINDOWS if type(w := mine.get(key)) is int and w > 0), None)
    owner, root = mine.get("owned_by"), mine.get("root")
    root = (
        root
        if isinstance(root, str) and root != server.model and not root.startswith(("/", ".", "~"))
        else None
    )
    return Listing(window, owner if isinstance(owner, str) else None, root, names)


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is not followed: the key would go to a host that nobody named."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """None: the redirect is an HTTPError."""
        return None
