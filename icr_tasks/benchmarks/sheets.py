"""The YAMLs that lm-eval reads, written from the benchmarks' declarations: `python -m
icr_tasks.benchmarks.sheets`.

Ours lie in `icr_tasks/tasks` (a test holds them equal to what this module renders); those of plugins are
written to the cache folder when lm-eval asks for tasks. A YAML is a data sheet: where the data come from, how
many items, which metric, which version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .. import __version__, plugins
from ..metrics import scorers
from ..storage import cache_root, write_atomic
from .declare import Benchmark, Group, Task, all_benchmarks
from .groups import across

_CLASS = "!function icr_tasks.harness.task.ICRTask"
OURS = Path(__file__).parents[1] / "tasks"


def _common(metrics: Sequence[str]) -> dict[str, Any]:
    """What the leaf tasks of a benchmark share; included, so that a leaf reads as a data sheet."""
    return {
        "class": _CLASS,
        "output_type": "generate_until",
        "test_split": "test",
        "metric_list": [
            {"metric": m, "aggregation": "mean", "higher_is_better": scorers.higher_is_better(m)}
            for m in metrics
        ],
    }


def _leaf(found: Benchmark, task: Task, common: str) -> dict[str, Any]:
    metadata = {"version": task.version, "icr": found.sheet(task)}
    return {"include": common, "task": found.task_name(task), "metadata": metadata}


def _group(group: Group) -> dict[str, Any]:
    aggregate = {"metric": group.metric, "weight_by_size": False, "filter_list": "none"}
    return {
        "group": group.name,
        "group_alias": group.title,
        "task": list(group.tasks),
        **({"aggregate_metric_list": [aggregate]} if group.metric else {}),
        "metadata": {"version": "1-A"},
    }


def render(config: dict[str, Any]) -> str:
    """One YAML file as text. `!function` is a tag, which plain dumping would quote."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
    return text.replace(f"'{_CLASS}'", _CLASS)


def files(benchmarks: Sequence[Benchmark] | None = None) -> dict[str, str]:
    """Relative path -> content of every task file of these benchmarks (default: ours)."""
    chosen = [b for b in all_benchmarks() if b.origin == "icr_tasks"] if benchmarks is None else benchmarks
    made: dict[str, dict[str, Any]] = {}
    for found in chosen:
        bundles = {tuple(task.metrics or found.metrics) for task in found.tasks}
        start = f"icr_{found.name}"
        for task in found.tasks:
            metrics = tuple(task.metrics or found.metrics)
            common = "_common_yaml" if len(bundles) == 1 else f"_{task.dataset}_common_yaml"
            made[f"{found.name}/{common}"] = _common(metrics)
            name = found.task_name(task).removeprefix(start).strip("_") or "all"
            made[f"{found.name}/{name}.yaml"] = _leaf(found, task, common)
        for group in found.groups:
            name = "_".join(["group", group.name.removeprefix(start).strip("_")]).strip("_")
            made[f"{found.name}/{name}.yaml"] = _group(group)
    if benchmarks is None:
        made |= {f"groups/{group.name}.yaml": _group(group) for group in across()}
    return {path: render(config) for path, config in made.items()}


def plugin_dir() -> Path | None:
    """Folder with the task files of plugin benchmarks, written when they changed; None where there are
    none."""
    theirs = [b for b in all_benchmarks() if b.origin != "icr_tasks"]
    if not theirs:
        return None
    made = files(theirs)
    key = hashlib.sha256(repr((__version__, sorted(plugins.load().items()), sorted(made.items()))).encode())
    folder = cache_root() / "tasks" / key.hexdigest()[:16]
    if not (folder / ".complete").is_file():
        for path, text in made.items():
            write_atomic(folder / path, text.encode())
        write_atomic(folder / ".complete", b"")
    return folder


def task_dirs() -> list[Path]:
    """Folders of task YAMLs for lm-eval: ours, and the plugins' where there are any."""
    theirs = plugin_dir()
    return [OURS, *([theirs] if theirs else [])]


def main() -> None:
    """Write all files of ours below icr_tasks/tasks, and remove what is no task any more."""
    made = files()
    for old in OURS.rglob("*yaml"):
        if str(old.relative_to(OURS)) not in made:
            old.unlink()
    for path, text in made.items():
        (OURS / path).parent.mkdir(exist_ok=True)
        (OURS / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
