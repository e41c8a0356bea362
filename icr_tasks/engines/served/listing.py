"""The list of models of icr-api's server, asked before anything is built."""

from __future__ import annotations

import urllib.parse

from ... import listing as listings
from ...listing import Listing as Listing
from .client import Server, Unreachable


def listing(server: Server, timeout: float = 15.0) -> Listing:
    """The server's listing of this model; empty where it has none.

    Raises Unreachable when nobody is there, or the key is refused.
    """
    query = "?" + urllib.parse.urlencode(dict(server.query)) if server.query else ""
    try:
        return listings.fetch(
            server.root,
            server.model,
            query=query,
            headers=server.headers,
            timeout=timeout,
            verify=server.verify,
        )
    except listings.NoListing as error:
        if error.status in (401, 403):
            raise Unreachable(
                f"{server.shown} refuses the key (HTTP {error.status}); set $ICR_API_KEY, or api_key_env=NAME"
            ) from None
        if error.status is None:
            why = server.redact(error.reason)
            raise Unreachable(f"no server at {server.shown} ({why}); start it, or correct base_url") from None
        return Listing()
