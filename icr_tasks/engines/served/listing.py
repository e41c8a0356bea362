"""The list of models of icr-api's server, asked before anything is built."""

from __future__ import annotations

import urllib.parse
from pathlib import PurePosixPath

from ... import listing as listings
from ...errors import IcrError
from ...listing import Listing as Listing
from .client import Server, Unreachable
from .fleet import Fleet


def listing_of(fleet: Fleet) -> Listing:
    """The listing of the first server that answers; the others of the fleet must say the same model and window.

    A server that is not there is left out until it is, and compared before it is asked. Raises Unreachable when none
    is, IcrError for another model.
    """
    found: dict[str, Listing] = {}
    for i, server in enumerate(fleet.servers):
        try:
            found[server.shown] = listing(server)
        except Unreachable as error:
            if len(fleet.servers) == 1 or (i + 1 == len(fleet.servers) and not found):
                raise
            fleet.failed(i, error)
            fleet.unseen.add(i)
    (first, told), *others = found.items()
    for address, other in others:
        _compare(first, told, address, other)

    def compare(server: Server) -> None:
        if (late := listing(server)) == Listing() != told:
            raise Unreachable(f"{server.shown} does not tell its models yet")
        _compare(first, told, server.shown, late)

    fleet.compare = compare
    return told


def _compare(first: str, told: Listing, address: str, other: Listing) -> None:
    """Raises IcrError where two servers do not say the same model and window."""
    if _marks(other) != _marks(told):
        raise IcrError(
            f"{address} serves {_named(other) or 'a model'} with a window of {other.window} tokens, {first} "
            f"{_named(told) or 'one'} with {told.window}: the servers of a fleet must be started alike"
        )


def _marks(told: Listing) -> tuple[object, ...]:
    """What servers of one model say alike: the folder of local weights may lie elsewhere on each machine."""
    return told.window, told.root, told.name, PurePosixPath(told.weights or "").name


def _named(told: Listing) -> str | None:
    weights = PurePosixPath(told.weights or "").name
    return told.root or " from ".join(n for n in (told.name, weights) if n) or None


_KEY = "set $ICR_API_KEY, or api_key_env=NAME"


def listing(server: Server, timeout: float = 15.0, key: str = _KEY) -> Listing:
    """The server's listing of this model; empty where it has none. `key`: what to do about a wrong one.

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
            raise Unreachable(f"{server.shown} refuses the key (HTTP {error.status}); {key}") from None
        if error.status is None:
            why = server.redact(error.reason)
            raise Unreachable(f"no server at {server.shown} ({why}); start it, or correct base_url") from None
        return Listing()
