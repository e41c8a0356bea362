"""How lm_eval's command ends when something is wrong with a run of our tasks: one line that names the fix.

ICR_DEBUG=1 shows the traceback as well. The exit codes stand in docs/flags.md.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import wraps
from typing import Any

from ..credentials import redact_text
from ..errors import IcrError

_LENGTH = re.compile(
    r"(?:maximum (?:context|model) length (?:is|of)|context (?:length|window|size) (?:is|of)|max_model_len\D{0,9}"
    r"|n_ctx\D{0,9})\D{0,12}(\d{3,8})",
    re.I,
)
_TWICE = re.compile(r"got multiple values for keyword argument '(\w+)'")
_PARAMETER = re.compile(
    r"unsupported (?:parameter|value)|extra_forbidden|unrecognized request argument", re.I
)
_said: list[str] = []  # the last refusal of a server, which lm_eval logs and forgets
_UNREACHABLE = ("ConnectionError", "ClientConnectorError", "ServerDisconnectedError", "ConnectTimeout")
_REFUSED = ("HTTPError", "ClientResponseError", "RetryError")
_NO_JSON = ("JSONDecodeError", "ContentTypeError")
_LATE = ("ReadTimeout", "TimeoutError", "ServerTimeoutError")


def heard(message: str) -> None:
    """Remember what a server said when it refused a request."""
    _said[:] = [message]


def guarded(execute: Callable[[Any], Any], before: Callable[[], Any]) -> Callable[[Any], Any]:
    """`execute` of lm_eval's `run` command; `before` is called first."""

    @wraps(execute)
    def run(args: Any) -> Any:
        try:
            before()
            return execute(args)
        except Exception as error:
            known = explained(error, _ours(args))
            if known is None or isinstance(error, SystemExit):
                raise
            raise SystemExit(say(known)) from None

    return run


def say(error: IcrError) -> int:
    """Print the line (and, with ICR_DEBUG, the traceback under way); the exit code."""
    if os.environ.get("ICR_DEBUG"):
        traceback.print_exc()
    sys.stdout.flush()
    print(f"icr: error: {redact_text(' '.join(str(error).split()))}", file=sys.stderr)
    return error.exit_code


def explained(error: BaseException, ours: bool) -> IcrError | None:
    """The error as a sentence: one of ours, and where our tasks run, those of lm_eval and of servers; None for
    what only a traceback tells."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, IcrError):
            return cause
        cause = cause.__cause__
    if not ours:
        return None
    name = type(error).__name__
    if missing := re.match(r"Tasks not found: (\S+?),?$", str(error)):
        from ..benchmarks import catalog

        near = get_close_matches(missing[1], [*catalog.leaves(), *catalog.groups()], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return IcrError(f"no task {missing[1]!r}.{hint} `lm_eval ls tasks` lists all")
    if isinstance(error, TypeError) and (twice := _TWICE.search(str(error))):
        option = twice[1]  # lm_eval 0.4.13 passes a device (cuda:0) also where --device is not given
        return IcrError(
            f"lm_eval gives its engine {option} itself: use --{option} of the command, and leave {option}= out of "
            "--model_args"
        )
    if name in _UNREACHABLE:
        return IcrError(f"no server answers ({error}); start it, or correct base_url=", exit_code=3)
    if name in _LATE:
        return IcrError(
            f"the server did not answer in time ({error}); give timeout=SECONDS in --model_args, or a smaller "
            "num_concurrent=",
            exit_code=3,
        )
    if name in _REFUSED:
        return _refusal(error)
    if name in _NO_JSON and {"requests", "aiohttp"} & _passed(error):
        return IcrError(
            f"the server's reply is no JSON ({error}); is base_url= the address of its API, and does a proxy cut replies?",
            exit_code=3,
        )
    if (
        isinstance(error, ValueError | AssertionError | TypeError)
        and str(error)
        and _raised_in_lm_eval(error)
    ):
        return IcrError(f"lm_eval: {error}")
    return None


def _refusal(error: BaseException) -> IcrError:
    said = getattr(getattr(error, "response", None), "text", "") or (_said[0] if _said else "")
    text = " ".join(f"{error} {said}".split())[:600]
    if length := _LENGTH.search(said):
        return IcrError(
            f"the server refused a prompt as too long; it takes {length[1]} tokens: give max_length={length[1]} in "
            f"--model_args (prompts are then cut to it, and marked), or a task of a shorter length ({text})",
            exit_code=3,
        )
    if _PARAMETER.search(said):
        return IcrError(
            f"the server refused a parameter that lm_eval's own API engines send: use --model icr-api, which leaves "
            f"out what a server does not take ({text})",
            exit_code=3,
        )
    return IcrError(
        f"the server refused a request, which ends a run of lm_eval's own API engines: {text}", exit_code=3
    )


def _raised_in_lm_eval(error: BaseException) -> bool:
    return any([module.startswith("lm_eval.") for module in _frames(error)][-1:])


def _passed(error: BaseException) -> set[str]:
    """Packages whose code the error came through."""
    return {name.partition(".")[0] for name in _frames(error)}


def _frames(error: BaseException) -> Iterator[str]:
    """Modules from the outermost call to where the error was raised."""
    at = error.__traceback__
    while at is not None:
        yield str(at.tb_frame.f_globals.get("__name__"))
        at = at.tb_next


def _ours(args: Any) -> bool:
    """Whether the command line names a task of ours (a configuration file may, so it counts as well)."""
    given = getattr(args, "tasks", None)
    if not given:
        return bool(getattr(args, "config", None))
    return "icr_" in (given if isinstance(given, str) else ",".join(map(str, given)))
