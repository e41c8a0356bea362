"""The list of models of icr-api's server, asked before anything is built."""

from __future__ import annotations

import re
import urllib.parse

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
    known = {address: told for address, told in found.items() if told != Listing()} or found
    for i, server in enumerate(fleet.servers):
        if server.shown in found and server.shown not in known:  # tells no model yet, as while it loads
            fleet.unseen.add(i)
    (first, told), *others = known.items()
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
    if not _alike(told, other):
        raise IcrError(
            f"{address} serves {_named(other) or 'a model'} with a window of {other.window} tokens, {first} "
            f"{_named(told) or 'one'} with {told.window}: the servers of a fleet must be started alike"
        )


def _alike(one: Listing, two: Listing) -> bool:
    """Whether two servers say the same model and window. Folders of local weights may lie elsewhere on each machine, and
    names be each machine's own where the weights are told and the same."""
    weights = _last(one.weights), _last(two.weights)
    if one.window != two.window or (all(weights) and weights[0] != weights[1]):
        return False
    if one.root and two.root and one.root != two.root:  # a name of the hub, not a place on a machine
        return False
    return all(weights) or _last(one.name) == _last(two.name) or not (one.name and two.name)


def _last(path: str | None) -> str:
    return re.split(r"[\\/]", (path or "").rstrip("\\/"))[-1]


def _named(told: Listing) -> str | None:
    weights = _last(told.weights)
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
