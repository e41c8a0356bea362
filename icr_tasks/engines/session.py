"""What an engine measured for a prompt, handed to the task that made the prompt (same process, no wire
format)."""

from __future__ import annotations

import gc
import hashlib
from typing import Any
from weakref import WeakKeyDictionary

from ..errors import IcrError
from ..settings import Setting

_FOUND: dict[str, dict[str, Any]] = {}


def key(prompt: str) -> str:
    """sha256 of the prompt text."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


def record(prompt: str, found: dict[str, Any]) -> None:
    """Add measurements (`timing`, `kv`, `error` ...) for this prompt."""
    _FOUND.setdefault(key(prompt), {}).update(found)


def lookup(prompt: str) -> dict[str, Any] | None:
    """What was recorded for this prompt, or None."""
    return _FOUND.get(key(prompt))


def clear() -> None:
    """Forget everything (between the cells of a sweep: the same prompt may run under another setting)."""
    _FOUND.clear()


# ---- boundary ------------------------------------------------------------------------------------
# Where the context ends in a prompt, told out of band: a marker inside the text would change what models
# read.

_OFFSETS: dict[str, int] = {}


def note(prompt: str, offset: int) -> None:
    """Remember that the context of this prompt ends before character `offset`."""
    _OFFSETS[key(prompt)] = offset


def offset_for(prompt: str) -> int | None:
    """Character offset at which the question part begins, or None when unknown."""
    return _OFFSETS.get(key(prompt))


# ---- active --------------------------------------------------------------------------------------
# The one setting of the icr_ tasks in use, for engines that must act on it (KV compression).

# Weak: a notebook may evaluate one setting after the other, and the tasks of an earlier run no longer count.
_SETTINGS: WeakKeyDictionary[object, Setting] = WeakKeyDictionary()


def register(task: object, setting: Setting) -> None:
    """Called when a task is created; forgotten when the task is."""
    _SETTINGS[task] = setting


def setting() -> Setting | None:
    """The setting shared by all tasks in use; None without icr_ tasks. IcrError when they differ."""
    found = _found()
    if len(found) > 1:
        gc.collect()  # lm_eval's tasks sit in reference cycles
        found = _found()
    if len(found) > 1:
        raise IcrError(
            f"one run has one setting, but the tasks ask for {', '.join(sorted(found))}; run them apart"
        )
    return next(iter(found.values()), None)


def forget_tasks() -> None:
    """Forget all tasks (between the runs of a sweep)."""
    _SETTINGS.clear()


def _found() -> dict[str, Setting]:
    return {str(s): s for s in list(_SETTINGS.values())}
