"""Every task and group by name, from the benchmarks' declarations: the one catalogue (lm-eval reads the YAMLs
instead)."""

from __future__ import annotations

from typing import Any

from ..errors import IcrError, unknown
from ..setting_options import split_task
from .declare import Benchmark, Task, all_benchmarks
from .groups import across


def leaves() -> dict[str, tuple[Benchmark, Task]]:
    """Leaf task name -> its benchmark and declaration, ours first."""
    return {found.task_name(task): (found, task) for found in all_benchmarks() for task in found.tasks}


def groups() -> dict[str, list[str]]:
    """Group name -> names of its tasks or groups: each benchmark's own, and those across benchmarks."""
    own = (group for found in all_benchmarks() for group in found.groups)
    return {group.name: list(group.tasks) for group in (*own, *across())}


def find(task: str) -> tuple[Benchmark, Task]:
    """Benchmark and declaration of a leaf task. Raises IcrError with the nearest match."""
    known = leaves()
    name, setting = split_task(task)
    if setting is not None and (name in known or name in groups()):
        raise IcrError(
            f"task {task!r}: settings are an option of their own here; name {name} and setting {setting}"
        )
    if task not in known:
        from .. import plugins

        error = unknown("task", task, [*known, *groups()])
        raise type(error)(str(error) + plugins.hint())
    return known[task]


def sheet_of(task: str) -> dict[str, Any]:
    """The task's data sheet (`metadata.icr` of its YAML). Raises IcrError with the nearest match."""
    found, declared = find(task)
    return found.sheet(declared)


def metrics_of(task: str) -> tuple[str, ...]:
    """The metrics that a task names, the headline first. Raises IcrError with the nearest match."""
    found, declared = find(task)
    return tuple(declared.metrics or found.metrics)


def version(task: str) -> str:
    """Version of the task's definition and of its metric."""
    found, declared = find(task)
    return f"{declared.version}/{found.sheet(declared).get('metric_version')}"


def expand(name: str) -> list[str]:
    """Leaf tasks of a task or group name. Raises IcrError with the nearest match."""
    known = groups()
    if name in known:
        return [leaf for part in known[name] for leaf in expand(part)]
    find(name)
    return [name]
