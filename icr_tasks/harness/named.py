"""`icr_helmet_rag_nq_32k::rag@4k`: a task under a setting, for hosts that pass no options.

lm-eval's TaskManager learns such names: one leaf task keeps the whole name, so that several settings of a task
may stand in one command; a group, or a pattern, gives its leaf tasks. The task itself reads the setting out of
its name (`options.host_options`).
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from ..errors import IcrError, unknown
from ..setting_options import split_task
from ..settings import Setting

_MARK = "::"


def patch(manager: Any) -> None:
    """Teach a TaskManager class names with a setting; once."""
    if getattr(manager, "_icr_named", False) or not hasattr(manager, "_load_spec"):
        return  # make compat and tests/test_upstream.py say when upstream moves it
    load, match = manager._load_spec, manager.match_tasks

    @wraps(load)
    def _load_spec(self: Any, spec: Any) -> Any:
        if not _ours(self, spec):
            return load(self, spec)
        found = [_build(self, name) for name in _expand(self, spec)]
        return found[0] if len(found) == 1 else found

    @wraps(match)
    def match_tasks(self: Any, task_list: list[str]) -> list[str]:
        named = [spec for spec in task_list if _ours(self, spec)]
        others = [spec for spec in task_list if spec not in named]
        return [*(name for spec in named for name in _expand(self, spec)), *match(self, others)]

    manager._load_spec, manager.match_tasks = _load_spec, match_tasks
    manager._icr_named = True


def _ours(manager: Any, spec: Any) -> bool:
    """Whether a name carries a setting; names of others' tasks may hold the same mark, but are registered."""
    return isinstance(spec, str) and _MARK in spec and "icr_" in spec and spec not in manager.task_index


def _expand(manager: Any, spec: str) -> list[str]:
    """Names of leaf tasks, each with the setting. Raises IcrError for an unknown task or setting."""
    pattern, setting = split_task(spec)
    assert setting is not None
    Setting.parse(setting)
    if "/" in setting:
        raise IcrError(
            f"task {spec!r}: lm_eval names files after tasks; give a setting with a '/' by --metadata"
        )
    ours = [name for name in manager.all_tasks if name.startswith("icr_")]
    chosen = [name for name in manager.__class__.match_tasks(manager, [pattern]) if name in ours]
    if not chosen:
        raise unknown("task", pattern, ours)
    leaves = dict.fromkeys(leaf for name in chosen for leaf in _leaves(manager, name))
    return [leaf + spec[len(pattern) :] for leaf in leaves]


def _leaves(manager: Any, name: str) -> list[str]:
    entry = manager.task_index[name]
    if entry.kind.name != "GROUP":
        return [name]
    return [leaf for child in entry.cfg["task"] for leaf in _leaves(manager, child)]


def _build(manager: Any, name: str) -> Any:
    entry = manager.task_index[split_task(name)[0]]
    return manager._factory.build(entry, overrides={"task": name}, registry=manager.task_index)
