"""What travels with a request: the setting it is asked under, where its context ends, and what the engine
measured for it.

The tasks of this package send requests that have the attributes `setting`, `boundary` and `found`
(`harness.instance.PromptInstance`). Requests of other tasks have none of them: they take the setting of the
model arguments, and nobody asks what was measured for them. Nothing is kept here between two calls, so two
settings in one process give what two processes give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..errors import IcrError
from ..settings import Setting


def ours(request: Any) -> bool:
    """Whether what an engine measured reaches somebody: True for requests of this package's tasks."""
    return getattr(request, "found", None) is not None


def setting_of(request: Any) -> Setting | None:
    """The setting this request is asked under; None where the model arguments decide."""
    return getattr(request, "setting", None)


def boundary_of(request: Any) -> int | None:
    """Character of the prompt at which the question part begins, or None when unknown.

    It is told beside the prompt because a marker inside the text would change what models read.
    """
    return getattr(request, "boundary", None)


def found_of(request: Any) -> dict[str, Any]:
    """What was recorded for this request (`timing`, `kv`, `error` ...); empty for requests of other tasks."""
    return dict(getattr(request, "found", None) or {})


def begin(requests: Iterable[Any]) -> None:
    """Forget what an earlier call measured: a request that is sent again is measured again."""
    for request in requests:
        if ours(request):
            request.found.clear()


def record(request: Any, found: dict[str, Any]) -> None:
    """Add measurements to a request. Of several repeats the last is kept, and the error of any of them."""
    if ours(request):
        request.found.update(found)


def by_setting(settings: Sequence[Setting | None], which: Iterable[int]) -> dict[Setting | None, list[int]]:
    """Indexes of requests, grouped by their setting; groups and their members in the order given."""
    groups: dict[Setting | None, list[int]] = {}
    for i in which:
        groups.setdefault(settings[i], []).append(i)
    return groups


def refuse(
    settings: Iterable[Setting | None], reason_of: Callable[[Setting | None], str | None]
) -> dict[Setting | None, str]:
    """Settings that an engine cannot run, with the reason, before anything is generated.

    Raises IcrError when it can run none of them: then there is nothing to generate at all.
    """
    wanted = dict.fromkeys(settings)
    refused = {setting: why for setting in wanted if (why := reason_of(setting)) is not None}
    if refused and len(refused) == len(wanted):
        raise IcrError(next(iter(refused.values())))
    return refused


# The lm-eval model of the evaluation that is under way in this context; nothing outlives the evaluation.
_ENGINE: ContextVar[Any] = ContextVar("icr_engine", default=None)


@contextmanager
def evaluating(lm: Any) -> Iterator[None]:
    """While an evaluation by this model runs, `engine()` is that model."""
    token = _ENGINE.set(lm)
    try:
        yield
    finally:
        _ENGINE.reset(token)


def engine() -> Any:
    """The model that answers the evaluation under way: a task whose second prompt depends on the first answer
    sends it there. None outside of one, and where the start-up hook is off."""
    return _ENGINE.get()
