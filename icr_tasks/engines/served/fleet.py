"""Several servers of one model: requests over one document go to one server, so that its prefix cache hits.

Rendezvous hashing with bounded loads: every document has an order of the servers of its own; it takes the first
that works and has no more than its share of what is under way. A server that fails is left out for a while,
and its documents go to the next of their order; nobody else's move.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import IcrError

if TYPE_CHECKING:
    from .client import Server

log = logging.getLogger("icr_tasks")
_ABOVE = 2.0  # times an even share that a server may have under way
_FEW = 8  # that it may have in any case: the questions of one document come together
_REST = 30.0  # seconds that a server which failed is left out
_HEAD = 4096  # characters that name a document where nothing else does


def addresses(given: Any) -> list[str]:
    """The addresses of `fleet=`: a list, or a text with `;` or spaces between them. Raises IcrError."""
    parts = re.split(r"[;\s]+", given) if isinstance(given, str) else list(given or [])
    found = [str(part) for part in parts if part]
    if wrong := [a for a in found if urlsplit(a).scheme not in ("http", "https")]:
        raise IcrError(
            f"fleet: {wrong[0]!r} is not http(s); write fleet=http://HOST:8000/v1;http://OTHER:8000/v1"
        )
    return found


def document_of(request: Any, text: str) -> str:
    """What requests over one document share: its files or cluster where the task tells them, else how the prompt
    begins."""
    doc = getattr(request, "doc", None)
    doc = doc if isinstance(doc, Mapping) else {}
    if told := doc.get("documents") or doc.get("cluster"):
        return str(told)
    return text[:_HEAD]


class Fleet:
    """The servers, how many requests each has under way, and which are left out until when (`clock` seconds)."""

    def __init__(self, servers: Sequence[Server], clock: Any = time.monotonic) -> None:
        self.servers, self._clock = list(servers), clock
        self.going = [0] * len(self.servers)
        self.answered = [0] * len(self.servers)
        self._out = [0.0] * len(self.servers)
        self.unseen: set[int] = set()  # were not there when the models were compared
        self.compare: Callable[[Server], None] = lambda server: None

    def take(self, document: str) -> int:
        """The server for a request; `give` it back when the request ends."""
        order = sorted(range(len(self.servers)), key=lambda i: self._rank(i, document))
        now = self._clock()
        able = [i for i in order if self._out[i] <= now] or order  # all failed: the first may be back
        most = _ABOVE * (sum(self.going) + 1) / len(able)
        chosen = next((i for i in able if self.going[i] + 1 <= max(most, _FEW)), able[0])
        self.going[chosen] += 1
        return chosen

    def give(self, i: int, *, answered: bool = False) -> None:
        """A request that server `i` had is over."""
        self.going[i] -= 1
        self.answered[i] += answered

    def failed(self, i: int, why: object) -> None:
        """Leave a server out for a while; nothing happens where it is the only one."""
        if len(self.servers) > 1:
            if self._out[i] <= self._clock():
                log.warning("%s is left out for %g s: %s", self.servers[i].shown, _REST, why)
            self._out[i] = self._clock() + _REST

    def record(self) -> dict[str, int]:
        """Answers by address, where there are several."""
        if len(self.servers) < 2:
            return {}
        return {server.shown: n for server, n in zip(self.servers, self.answered, strict=True)}

    def _rank(self, i: int, document: str) -> bytes:
        text = f"{self.servers[i].root}\0{document}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=8).digest()
