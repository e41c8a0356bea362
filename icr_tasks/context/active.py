"""The one setting of this process's icr_ tasks, for engines that must act on it (KV compression)."""

from __future__ import annotations

from ..errors import IcrError
from .setting import Setting

_SETTINGS: dict[str, Setting] = {}


def register(task: str, setting: Setting) -> None:
    """Called when a task is created."""
    _SETTINGS[task] = setting


def setting() -> Setting | None:
    """The setting shared by all tasks of this process; None without icr_ tasks. IcrError when they differ."""
    found = {str(s): s for s in _SETTINGS.values()}
    if len(found) > 1:
        raise IcrError(f"one run has one setting, but the tasks ask for {', '.join(sorted(found))}; run them apart")
    return next(iter(found.values()), None)


def clear() -> None:
    """Forget all tasks (between the runs of a sweep)."""
    _SETTINGS.clear()
