"""Run icr_ tasks in this process on an engine that is already loaded (the demo and the sweep; `lm_eval` does not need it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import tasks_dir
from .context import active


@dataclass(frozen=True)
class Cell:
    """Tasks under one setting and prompt. `limit` counts items a task."""

    tasks: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None


def manager(metadata: dict[str, Any]) -> Any:
    """A TaskManager that knows only our tasks (indexing the built-in ones takes seconds)."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(tasks_dir()), include_defaults=False, metadata=metadata)


def generate(lm: Any, cells: Sequence[Cell], model_args: dict[str, Any], gen_kwargs: dict[str, Any]) -> None:
    """Answer the requests of all cells in one call, so that prompts which share a document share its prefix.

    The engine must have an answer store: `evaluate` then finds every answer there.
    """
    requests = []
    for cell in cells:
        active.clear()
        loaded = manager({**model_args, **cell.metadata}).load(list(cell.tasks))
        for task in loaded["tasks"].values():
            task.set_config("generation_kwargs", gen_kwargs, update=True)
            task.build_all_requests(limit=cell.limit, apply_chat_template=True, chat_template=lm.apply_chat_template)
            requests += [r for r in task.instances if r.repeats]
    lm.generate_until(requests)


def evaluate(
    lm: Any, cell: Cell, *, engine: str, model_args: dict[str, Any], gen_kwargs: dict[str, Any], out: Path
) -> dict[str, Any]:
    """lm_eval's own evaluation of one cell, saved below `out` as `lm_eval --output_path --log_samples` would."""
    import lm_eval
    from lm_eval.loggers import EvaluationTracker

    from .plugin.hooks import patch_tracker

    active.clear()
    tracker = EvaluationTracker(output_path=str(out))
    results = lm_eval.simple_evaluate(
        model=lm,
        model_args=model_args,
        tasks=list(cell.tasks),
        task_manager=manager({**model_args, **cell.metadata}),
        limit=cell.limit,
        log_samples=True,
        apply_chat_template=True,
        gen_kwargs=dict(gen_kwargs),
        bootstrap_iters=0,
        evaluation_tracker=tracker,
    )
    assert results is not None  # one process, so rank 0
    results["config"]["model"] = engine
    import lm_eval.loggers.evaluation_tracker as module

    patch_tracker(module)
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return results
