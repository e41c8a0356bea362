"""The one setting of the icr_ tasks in use, for engines that must act on it (KV compression)."""

from __future__ import annotations

import gc
from weakref import WeakKeyDictionary

from ..errors import IcrError
from .setting import Setting

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
        raise IcrError(f"one run has one setting, but the tasks ask for {', '.join(sorted(found))}; run them apart")
    return next(iter(found.values()), None)


def clear() -> None:
    """Forget all tasks (between the runs of a sweep)."""
    _SETTINGS.clear()


def _found() -> dict[str, Setting]:
    return {str(s): s for s in list(_SETTINGS.values())}
