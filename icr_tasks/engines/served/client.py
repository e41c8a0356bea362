"""Requests to one served model: bounded concurrency, retries with back-off, a hard cap on what is spent.

Answers are delivered one by one as they finish. One refused prompt fails one item; a server that is gone,
that refuses the key, or whose model changes under its name ends the run, after what was under way was
delivered.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import IcrError
from ...lazy import needs
from .dialect import OURS, Dialect, Refused, Reply, Unreadable, length_of, read, said_of, stops_of
from .fleet import Fleet
from .price import Price
from .spending import BudgetReached, Spending

log = logging.getLogger("icr_tasks")
_FATAL = {
    401: "refuses the key (header Authorization)",
    402: "wants payment",
    403: "refuses access",
    404: "does not know this path or model",
}
# A 403 is about the prompt where it says so, as gateways with moderation do.
_MODERATED = re.compile(r"flagged|moderat|content.?(?:polic|filter|management)|safety|harmful", re.I)
_RETRIED = (408, 409, 425, 429)
_SILENT = 5  # items given up in a row, with no answer to any other meanwhile: the server is broken
_LONGEST = 600.0  # seconds of a Retry-After that are waited for
_BILLED = 3  # tries of one request that the server may have worked on: time-outs, replies that are none
_FRAME = 512  # tokens that a chat template may add to the bytes of a prompt


class Unreachable(IcrError):
    """No server, no permission, or no answer to anybody; exit code 3."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=3)


class Again(Exception):
    """Try later; `after` seconds when the server said so. `billed`: it may have worked on the request."""

    def __init__(self, reason: str, after: float | None = None, *, billed: bool = False) -> None:
        super().__init__(reason)
        self.after, self.billed = after, billed


class Denied(Refused):
    """A 403 of a server that answered others: most likely this prompt is not wanted; many in a row end the run."""


@dataclass(frozen=True)
class Ask:
    """One request: text or messages, lm-eval's generation arguments, parameters for this request alone."""

    prompt: str | list[dict[str, Any]]
    kwargs: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)
    document: str = ""  # chooses the server of a fleet

    @property
    def n_bytes(self) -> int:
        """Bytes of the prompt: no tokenizer makes more tokens of them."""
        if isinstance(self.prompt, str):
            return len(self.prompt.encode("utf-8", "surrogatepass"))
        return sum(len(str(m.get("content", "")).encode("utf-8", "surrogatepass")) for m in self.prompt)


@dataclass
class Server:
    """Where and how to ask. `root` ends before /chat/completions; `timeout` in seconds bounds one request."""

    root: str
    shown: str
    model: str
    headers: Mapping[str, str] = field(repr=False)
    redact: Callable[[Any], str]
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    concurrency: int = 16
    timeout: float = 600.0
    retries: int = 6
    verify: bool = True
    pause: float = 0.5  # seconds before the first retry; doubles, with jitter, up to 30
    extra: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)  # parameters the user named
    think_end: str | None = None


class Client:
    """Asks many requests; `deliver(index, reply or None, record)` is called as each ends."""

    def __init__(
        self,
        server: Server,
        dialect: Dialect,
        price: Price | None,
        spending: Spending,
        known: Callable[[Reply], None],
        fleet: Fleet | None = None,
        trusted: bool = False,
    ) -> None:
        """`trusted`: the server gave stored answers, so the key is good."""
        self.trusted = trusted
        self.fleet = fleet or Fleet([server])
        self.server, self.dialect, self.price, self.spending, self.known = (
            server,
            dialect,
            price,
            spending,
            known,
        )
        self.silent = 0

    async def run(
        self,
        indexes: Iterator[int],
        make: Callable[[int], Ask],
        deliver: Callable[[int, Reply | None, dict[str, Any]], None],
    ) -> None:
        """Ask all. Raises the error that ended the run, after what was under way then was delivered."""
        aiohttp = needs("aiohttp", "api", "served models")
        self.aiohttp, self.stopped, self.going = aiohttp, None, 0  # type: ignore[var-annotated]
        self.freed, self.seeing = asyncio.Condition(), asyncio.Lock()

        async def worker() -> None:
            for i in indexes:
                if self.stopped is not None:
                    return
                try:
                    deliver(i, *await self.one(make(i)))
                except IcrError as error:
                    self.stopped = self.stopped or error
                    async with self.freed:
                        self.freed.notify_all()
                    return

        timeout = aiohttp.ClientTimeout(total=self.server.timeout, connect=min(self.server.timeout, 30.0))
        connector = aiohttp.TCPConnector(limit=self.server.concurrency, ssl=self.server.verify)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector, trust_env=True
        ) as self.session:
            await asyncio.gather(*(worker() for _ in range(self.server.concurrency)))
        if self.stopped is not None:
            raise self.stopped

    async def one(self, ask: Ask) -> tuple[Reply | None, dict[str, Any]]:
        """(reply, what was measured) of one request; without a reply the record says why under "error"."""
        tenacity = needs("tenacity", "api", "served models")
        since, late = time.perf_counter(), 0

        def given_up(state: Any) -> bool:
            nonlocal late
            late += isinstance(state.outcome.exception(), Again) and state.outcome.exception().billed
            return late >= _BILLED or state.attempt_number > self.server.retries or self.stopped is not None

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Again), stop=given_up, wait=self.wait, reraise=True
        )
        try:
            reply, usd = await retrying(self.once, ask)
        except (Refused, Again) as error:
            self.silent += isinstance(error, Again | Denied)
            if self.silent >= _SILENT:
                raise Unreachable(
                    f"{self.server.shown} gave no answer to {self.silent} requests in a row: {error}; "
                    "finished answers "
                    "are kept: run the same command again when it works"
                ) from None
            return None, {"error": self.server.redact(f"server: {error}")}
        self.silent = 0
        seconds = round(time.perf_counter() - since, 4)
        return reply, {"timing": {"engine": seconds}, "usage": reply.usage.record(usd)}

    def wait(self, state: Any) -> float:
        """Seconds before the next try: what the server asks for, or doubling; with jitter."""
        after = state.outcome.exception().after
        if after is not None:
            return after * random.uniform(1.0, 1.1)
        return min(self.server.pause * 2 ** (state.attempt_number - 1), 30.0) * random.uniform(0.5, 1.0)

    async def once(self, ask: Ask) -> tuple[Reply, float | None]:
        """One try, in a dialect that the server takes. Raises Again, Refused or IcrError."""
        while True:
            at_most = (
                0.0 if self.price is None else self.price.at_most(ask.n_bytes + _FRAME, length_of(ask.kwargs))
            )
            ticket = await self.ticket(at_most) if self.price is not None else None
            usd: float | None = 0.0
            version = self.dialect.version
            told = (
                {**ask.kwargs, "until": ()} if self.server.think_end else ask.kwargs
            )  # none inside a thought
            body = self.dialect.body(self.server.model, ask.prompt, told, {**self.server.extra, **ask.extra})
            self.going += 1
            at, good = self.fleet.take(ask.document), False
            try:
                await self.see(at)
                status, raw, after = await self.post(body, self.fleet.servers[at])
                if status >= 500:
                    self.fleet.failed(at, f"HTTP {status}")
                if status == 200:
                    good = True
                    usd = at_most
                    reply = read(raw, stops_of(ask.kwargs), self.server.think_end)
                    usd = None if self.price is None else self.price.usd(reply.usage, at_most)[0]
                    self.known(reply)
                    return reply, usd
            except Unreadable as error:
                raise Again(self.server.redact(error), billed=True) from None
            except Again as error:
                usd = at_most if error.billed else 0.0
                self.fleet.failed(at, error)
                raise
            except asyncio.CancelledError:
                usd = at_most
                raise
            finally:
                self.going -= 1
                self.fleet.give(at, answered=good)
                if ticket is not None:
                    self.spending.settle(ticket, usd or 0.0)
                    async with self.freed:
                        self.freed.notify_all()
            self.refusal(status, raw, after, body, ask, version, self.fleet.servers[at])

    async def see(self, at: int) -> None:
        """Compare a server with the others that was not there at the start. Raises Again where it still is not, IcrError
        where it serves another model."""
        if at not in self.fleet.unseen:
            return
        async with self.seeing:
            if at in self.fleet.unseen:
                try:
                    await asyncio.to_thread(self.fleet.compare, self.fleet.servers[at])
                except Unreachable as error:
                    raise Again(str(error)) from None
                self.fleet.unseen.discard(at)

    async def ticket(self, usd: float) -> str:
        """Set the highest price of a request aside; waits while requests under way may cost less than that.

        Raises BudgetReached when none is under way.
        """
        async with self.freed:
            while True:
                if self.stopped is not None:
                    raise self.stopped
                if (ticket := self.spending.reserve(usd)) is not None:
                    return ticket
                if not self.going:
                    raise self.spending.reached(usd)
                await self.freed.wait()

    async def post(self, body: dict[str, Any], server: Server) -> tuple[int, str, float | None]:
        """(status, body, Retry-After) of a response. Raises Again where there is none."""
        path = "/completions" if "prompt" in body else "/chat/completions"
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        headers = {"Content-Type": "application/json", **server.headers}
        try:
            # A redirect is not followed: the texts would go to a host that nobody named.
            async with self.session.post(
                server.root + path,
                data=data,
                headers=headers,
                params=dict(server.query),
                allow_redirects=False,
            ) as response:
                raw = (await response.read()).decode("utf-8", "replace")
                return response.status, raw, _after(response.headers.get("Retry-After"))
        except self.aiohttp.ClientConnectorError as error:
            raise Again(server.redact(f"no connection ({error.os_error.strerror or error})")) from None
        except TimeoutError:
            raise Again(f"no answer within {server.timeout:g} s", billed=True) from None
        except (self.aiohttp.ClientError, OSError) as error:
            raise Again(
                server.redact(f"the connection broke ({error or type(error).__name__})"), billed=True
            ) from None

    def refusal(
        self,
        status: int,
        raw: str,
        after: float | None,
        body: dict[str, Any],
        ask: Ask,
        version: int,
        server: Server,
    ) -> None:
        """Returns where the request is to be written anew; raises what an HTTP error means otherwise."""
        said, param, _ = said_of(raw)
        said = server.redact(said)
        if 300 <= status < 400:
            raise Unreachable(
                f"{server.shown} sends on to another address, which is not followed; name that one"
            )
        if status in (400, 422):
            if version != self.dialect.version:
                return  # somebody else's refusal taught it meanwhile
            if self.dialect.learn(said, param, body, {**self.server.asked, **_asked(ask.kwargs)}):
                log.warning(
                    "%s: %s; asked again otherwise: %s", server.shown, said[:200], self.dialect.record()
                )
                return
        answers, moderated = self.trusted or any(self.fleet.answered), bool(_MODERATED.search(said))
        if status == 403 and (answers or moderated):
            # Before anything was answered a proxy may be what filters: five in a row end the run then.
            raise (Refused if answers and moderated else Denied)(f"HTTP 403: {said}")
        if status in _FATAL:
            raise Unreachable(f"{server.shown} {_FATAL[status]} (model {server.model!r}): {said}")
        if status < 500 and status not in _RETRIED:
            raise Refused(f"HTTP {status}: {said}")
        raise Again(f"HTTP {status}: {said}", after)


def _asked(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that somebody chose: sampling, and what this package has no word for."""
    return {k: v for k, v in kwargs.items() if k not in OURS and v is not None} | (
        {"temperature": kwargs["temperature"]} if kwargs.get("temperature") else {}
    )


def _after(given: str | None) -> float | None:
    """Seconds of a Retry-After header (a number, or a date), at most ten minutes; None for anything else."""
    if not given:
        return None
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), _LONGEST) if seconds == seconds else None


__all__ = ["Again", "Ask", "BudgetReached", "Client", "Server", "Unreachable"]
