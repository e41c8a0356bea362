"""Many prompts to one OpenAI-compatible server: bounded concurrency, time-outs, retries with back-off and
jitter.

Used by the judge (chat) and the xFinder extractor (completions). A reply is only ever the server's text; what
it means is decided by the caller's `accept`, which raises BadReply for a reply that must be asked for again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from ...errors import IcrError, install_hint
from .rubrics import BadReply
from .secrets import Redactor, quiet_http, redact_url, split_url

log = logging.getLogger("icr_tasks")
_ASKS = 3  # a reply that cannot be read is asked for again, twice: at temperature 0 more would not help
_FATAL = {
    401: "refuses the key",
    402: "wants payment",
    403: "refuses access",
    404: "does not know this path or model",
}
_RETRIED = (408, 409, 425, 429)
_TIMEOUTS = 2  # calls of one request that may run into the time-out
_SILENT = 3  # requests given up in a row, with no reply to any other meanwhile: the server is gone


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to ask. `timeout` (seconds) bounds one call, `retries` the calls after the first one."""

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    chat: bool = True
    concurrency: int = 32
    timeout: float = 300.0
    retries: int = 5
    max_tokens: int = 4096
    stop: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    pause: float = 0.5  # seconds before the first retry; doubles, with jitter, up to 20

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return redact_url(self.base_url)


@dataclass(slots=True)
class Outcome:
    """What became of one prompt: `value` as accepted, or the `reason` it failed; `replies` are all raw
    texts."""

    value: Any = None
    reason: str | None = None
    replies: list[str] = field(default_factory=list)


class Unreachable(IcrError):
    """No server, no permission, or no answer to anybody; exit code 3."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=3)


class _Again(Exception):
    """Try later; `after` seconds when the server said so."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class _Late(_Again):
    """No answer within the time-out."""


class _Unread(_Again):
    """A reply came that means nothing; asked for again at once, a few times."""


class _Refused(Exception):
    """This one request is not acceptable to the server."""


def ask_all(
    server: Endpoint,
    prompts: Sequence[str],
    accept: Callable[[int, str], Any],
    done: Callable[[int, Outcome], None] = lambda index, outcome: None,
) -> list[Outcome]:
    """Ask all prompts and return one outcome each; `done` is called as each finishes.

    Raises Unreachable when the server cannot be used, after `done` was called for what had finished.
    """
    if not prompts:
        return []
    return _run(_Asking(server, accept, done).run(prompts))


def _run(work: Coroutine[Any, Any, list[Outcome]]) -> list[Outcome]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    result: list[Any] = []  # inside a notebook: a loop runs already in this thread

    def target() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:  # handed to the caller's thread
            result.append(error)

    thread = Thread(target=target)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


class _Asking:
    def __init__(
        self, server: Endpoint, accept: Callable[[int, str], Any], done: Callable[[int, Outcome], None]
    ):
        self.server, self.accept, self.done = server, accept, done
        self.other: str | None = None  # the model that answers, where it is not the one asked for
        url, basic = split_url(server.base_url)
        parts = urlsplit(url)
        self.redact = Redactor(
            server.api_key,
            basic,
            basic and basic.removeprefix("Basic "),
            urlsplit(server.base_url).password,
            parts.query,
            *(v for _, v in parse_qsl(parts.query)),
        )
        self.client_args = {
            "base_url": urlunsplit(parts._replace(query="")),
            "default_query": dict(parse_qsl(parts.query)) or None,
            "default_headers": {"Authorization": basic} if basic else None,
            "api_key": server.api_key or "none",
            "max_retries": 0,
        }
        self.silent = 0

    async def run(self, prompts: Sequence[str]) -> list[Outcome]:
        openai = load_openai()
        outcomes: list[Outcome] = [Outcome() for _ in prompts]
        waiting, self.total = iter(range(len(prompts))), len(prompts)

        async def worker() -> None:
            for index in waiting:
                outcomes[index] = await self.one(index, prompts[index])
                self.done(index, outcomes[index])

        with quiet_http():
            timeout = openai.Timeout(self.server.timeout, connect=min(self.server.timeout, 10.0))
            async with openai.AsyncOpenAI(**self.client_args, timeout=timeout) as client:
                self.openai, self.client = openai, client
                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(min(self.server.concurrency, len(prompts))):
                            group.create_task(worker())
                except* Unreachable as errors:
                    raise errors.exceptions[0] from None
        if not any(o.replies for o in outcomes):
            raise Unreachable(f"no answer from {self.server.shown}: {outcomes[0].reason}")
        return outcomes

    async def one(self, index: int, prompt: str) -> Outcome:
        """One prompt until its reply is accepted, by tenacity: what passes is tried again, what does not is
        not."""
        import tenacity

        outcome, late = Outcome(), 0

        def given_up(state: Any) -> bool:
            nonlocal late
            late += isinstance(state.outcome.exception(), _Late)
            return late >= _TIMEOUTS or len(outcome.replies) >= _ASKS

        tried = tenacity.stop_after_attempt(self.server.retries + 1)
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_Again),
            stop=lambda state: bool(tried(state)) or given_up(state),
            wait=self.wait,
            reraise=True,
        )
        try:
            outcome.value = await retrying(self.once, index, prompt, outcome)
        except _Refused as error:
            outcome.reason = str(error)
            return outcome
        except _Again as error:
            outcome.reason = str(error)
            self.silent += not outcome.replies
        if self.silent >= min(_SILENT, self.total):
            raise Unreachable(f"{self.server.shown} does not answer: {outcome.reason}")
        return outcome

    async def once(self, index: int, prompt: str, outcome: Outcome) -> Any:
        """The accepted value of one reply, which is kept in `outcome`. Raises _Again or _Refused."""
        reply, finish = await self.call(prompt)
        self.silent = 0
        outcome.replies.append(reply)
        try:
            if finish == "length":
                raise BadReply(f"cut off after {self.server.max_tokens} tokens")
            return self.accept(index, reply)
        except BadReply as error:
            raise _Unread(self.redact(error)) from None

    def wait(self, state: Any) -> float:
        """Seconds before the next try: none for a reply that could not be read; what the server asks for, at
        most a minute; or doubling; with jitter."""
        error = state.outcome.exception()
        if isinstance(error, _Unread):
            return 0.0
        if error.after is not None:
            return min(error.after, 60.0) * random.uniform(1.0, 1.2)
        return min(self.server.pause * 2 ** (state.attempt_number - 1), 20.0) * random.uniform(0.5, 1.0)

    async def call(self, prompt: str) -> tuple[str, str | None]:
        """(text, finish reason) of one reply."""
        server, openai = self.server, self.openai
        prompt = prompt.encode("utf-8", "replace").decode()
        asked = {"messages": [{"role": "user", "content": prompt}]} if server.chat else {"prompt": prompt}
        body = {
            "model": server.model,
            **asked,
            "temperature": 0,
            "max_tokens": server.max_tokens,
            "stop": list(server.stop) or None,
        }
        body = {k: v for k, v in {**body, **server.extra}.items() if v is not None}
        try:
            async with asyncio.timeout(server.timeout):
                # As text: a body that is no JSON must not look like a reply, and what was said is kept as it
                # came.
                path = "/chat/completions" if server.chat else "/completions"
                # A redirect is not followed: the texts would go to a host that nobody named.
                stay = {"follow_redirects": False}
                text = await self.client.post(path, cast_to=str, body=body, options=stay)
        except openai.APIStatusError as error:
            raise self.status(error) from None
        except (openai.APITimeoutError, TimeoutError):
            raise _Late(f"no answer within {server.timeout:g} s") from None
        except openai.OpenAIError as error:
            raise _Again(self.redact(error.__cause__ or error)) from None
        return self.read(text)

    def status(self, error: Any) -> Exception:
        """What an HTTP error means: fatal for all, not acceptable for this request, or to be tried again."""
        code, said = error.status_code, self.redact(" ".join(str(error.message).split()))[:300]
        if 300 <= code < 400:
            host = (
                urlsplit(error.response.headers.get("location", "")).netloc.rpartition("@")[2] or "elsewhere"
            )
            return Unreachable(
                f"{self.server.shown} sends on to {host}, which was not followed; give that address if you "
                "trust it"
            )
        if code in _FATAL:
            return Unreachable(f"{self.server.shown} {_FATAL[code]} (model {self.server.model!r}): {said}")
        if code < 500 and code not in _RETRIED:
            return _Refused(f"HTTP {code}: {said}")
        try:
            after = float(error.response.headers.get("retry-after"))
        except (TypeError, ValueError):
            after = None
        return _Again(f"HTTP {code}: {said}", after if after is not None and after >= 0 else None)

    def compare(self, model: Any) -> None:
        """Warn, once, when a reply says that another model made it ("gpt-5" may answer as
        "gpt-5-2026-01-01")."""
        asked, said = (str(name).rpartition("/")[2].lower() for name in (self.server.model, model))
        if self.other is None and model and not (said.startswith(asked) or asked.startswith(said)):
            self.other = self.redact(str(model)[:80])
            log.warning("%s answers as model %r, not %r", self.server.shown, self.other, self.server.model)

    def read(self, text: str) -> tuple[str, str | None]:
        """The first choice of a response body; anything else is asked for again."""
        try:
            body = json.loads(text)
            choice = body["choices"][0]
            content = choice["message"]["content"] if self.server.chat else choice["text"]
            finish = choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _Again(f"not an OpenAI response: {self.redact(text[:80])!r}") from None
        self.compare(body.get("model"))
        content = "" if content is None else content
        if not isinstance(content, str):
            raise _Again("the reply is not text")
        return self.redact(content.encode("utf-8", "replace").decode()), finish


def load_openai() -> Any:
    """The openai package. Raises IcrError with the way to install it."""
    try:
        import openai
        import tenacity  # noqa: F401  (needed beside it)
    except ImportError as error:
        raise IcrError(f"the judge needs the openai client ({error}); {install_hint('judge')}") from error
    return openai
