"""The icr_ tasks by name, read from their YAML files without importing lm_eval."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import yaml

from .. import tasks_dir
from ..errors import unknown


class _Loader(yaml.SafeLoader):
    """YAML with lm-eval's `!function`, which is not needed here."""


_Loader.add_constructor("!function", lambda loader, node: None)


@lru_cache(maxsize=1)
def _all() -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    leaves, groups = {}, {}
    for path in tasks_dir().rglob("*.yaml"):
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        if isinstance(config.get("task"), str):
            leaves[config["task"]] = config.get("metadata", {})
        elif "group" in config:
            groups[config["group"]] = config["task"]
    return leaves, groups


def sheet(task: str) -> dict[str, Any]:
    """The task's data sheet (`metadata.icr` of its YAML). Raises IcrError with the nearest match."""
    leaves, groups = _all()
    if task not in leaves:
        raise unknown("task", task, [*leaves, *groups])
    return leaves[task]["icr"]


def version(task: str) -> str:
    """Version of the task's definition and of its metric."""
    return f"{_all()[0][task].get('version')}/{sheet(task).get('metric_version')}"


def expand(name: str) -> list[str]:
    """Leaf tasks of a task or group name. Raises IcrError with the nearest match."""
    leaves, groups = _all()
    if name in groups:
        return [leaf for part in groups[name] for leaf in expand(part)]
    sheet(name)
    return [name]
