"""Run icr_ tasks in this process on an engine that is already loaded (the demo and the sweep; `lm_eval` does
not need it)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..benchmarks.base import Item
from ..benchmarks.sheets import task_dirs
from ..engines import session
from ..errors import unknown
from ..setting_options import split_task
from .hooks import environment as environment


@dataclass(frozen=True)
class Cell:
    """Tasks under one setting and prompt. `limit` counts items a task."""

    tasks: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    chat: bool = True
    system: str | None = None


def manager(metadata: dict[str, Any]) -> Any:
    """A TaskManager that knows only our tasks (indexing the built-in ones takes seconds)."""
    from lm_eval.tasks import TaskManager

    return TaskManager(
        include_path=[str(folder) for folder in task_dirs()], include_defaults=False, metadata=metadata
    )


def items(cell: Cell, model_args: dict[str, Any]) -> dict[str, list[Item]]:
    """The items that a cell asks of each of its tasks; nothing is built."""
    return {str(task.config.task): task.items[: cell.limit] for task in _tasks(cell, model_args)}


def named(names: Sequence[str], metadata: dict[str, Any]) -> dict[str, Any]:
    """Task objects of tasks and groups that a user named. Raises IcrError with the nearest match."""
    found = manager(metadata)
    for name in names:
        if split_task(name)[0] not in found.all_tasks:
            raise unknown("task", name, found.all_tasks)
    return dict(found.load(list(names))["tasks"])


def _tasks(cell: Cell, model_args: dict[str, Any]) -> list[Any]:
    return list(manager({**model_args, **cell.metadata}).load(list(cell.tasks))["tasks"].values())


def build(
    lm: Any,
    cell: Cell,
    model_args: dict[str, Any],
    gen_kwargs: dict[str, Any],
    only: Mapping[str, AbstractSet[str]] | None = None,
) -> list[Any]:
    """The task objects of a cell with their requests made, in the words lm_eval would send.

    `only`: ids of the items that are asked here, by task; the others are asked elsewhere.
    """
    tasks = _tasks(cell, model_args)
    for task in tasks:
        task.set_config("generation_kwargs", gen_kwargs, update=True)
        samples = None
        if only is not None:
            asked = task.items[: cell.limit]
            task.n_whole = len(asked)
            samples = [i for i, item in enumerate(asked) if item.id in only.get(task.config.task, ())]
            if not samples:
                task._instances = []
                continue
        with session.evaluating(lm):
            task.build_all_requests(
                limit=None if samples else cell.limit,
                samples=samples,
                system_instruction=cell.system,
                apply_chat_template=cell.chat,
                chat_template=lm.apply_chat_template if cell.chat else None,
            )
    return tasks


def requests(
    lm: Any, cells: Sequence[Cell], model_args: dict[str, Any], gen_kwargs: dict[str, Any]
) -> list[Any]:
    """What all cells ask, for one call of an engine, so that prompts which share a document share its prefix.

    An engine with an answer store keeps what it answers: `evaluate` then finds every answer there.
    """
    tasks = [task for cell in cells for task in build(lm, cell, model_args, gen_kwargs)]
    return [r for task in tasks for r in task.instances if r.repeats]


def place_of(out: Path, cell: Cell) -> Path:
    """A folder of its own for a cell's lm_eval output: programs that read such a folder (every_eval_ever's converter)
    take the newest samples of a task for those of any results file beside them."""
    asked = json.dumps([cell.tasks, cell.metadata], sort_keys=True, default=str)
    name = f"{cell.tasks[0]}-{cell.metadata.get('setting', 'full')}"
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    return out / f"{re.sub(r'[^A-Za-z0-9@.=+_]+', '-', name)[:80]}-{digest}"


def evaluate(
    lm: Any, cell: Cell, *, engine: str, model_args: dict[str, Any], gen_kwargs: dict[str, Any], out: Path
) -> dict[str, Any]:
    """lm_eval's own evaluation of one cell, saved below `out` as `lm_eval --output_path --log_samples` would.

    Returns lm_eval's results with `samples`.
    """
    import lm_eval
    import lm_eval.evaluator as evaluator
    import lm_eval.loggers.evaluation_tracker as module
    from lm_eval.loggers import EvaluationTracker

    from .hooks import environment_once, patch_evaluator, patch_tracker

    patch_tracker(module)
    patch_evaluator(evaluator)
    tracker = EvaluationTracker(output_path=str(out))
    with environment_once():
        results = lm_eval.simple_evaluate(
            model=lm,
            model_args=model_args,
            tasks=list(cell.tasks),
            task_manager=manager({**model_args, **cell.metadata}),
            limit=cell.limit,
            log_samples=True,
            apply_chat_template=cell.chat,
            system_instruction=cell.system,
            gen_kwargs=dict(gen_kwargs) or None,
            evaluation_tracker=tracker,
        )
    assert results is not None  # one process, so rank 0
    results["config"]["model"] = engine
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return {**results, "samples": samples}
