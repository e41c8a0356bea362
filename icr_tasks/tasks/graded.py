"""How a task hands its answers to the graders, and what it tells the user when one of them failed."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..plugin import deferred
from .grading import Answer, grade

if TYPE_CHECKING:
    from .base import ICRTask

log = logging.getLogger("icr_tasks")
_HIDDEN = "***"


def run(task: ICRTask) -> dict[str, dict[str, float]]:
    """Metrics by item id from judge or extractor. Never raises IcrError: it is raised after everything is saved."""
    if "bypass" in task._metric_fn_list:
        return {}
    # One generation an item: the first.
    texts = {i.doc["id"]: (i.doc, i.resps[0] or "") for i in task._instances if i.resps}
    answers = [Answer(doc, task._by_id[k].fields, text) for k, (doc, text) in texts.items() if k not in task._failed]
    if not answers:
        return {}
    grades = grade(task.sheet["scorer"], task.options.graders, answers)
    task.sheet.update(grades.sheet)
    if grades.error is not None:
        log.error("%s: %s", task.config.task, grades.error)
        deferred.add(grades.error, advice(task))
    elif (reasons := grades.sheet.get("reasons", {})) and (headline := reasons.get(task.sheet["metric"])):
        log.warning("%s: no %s (%s)", task.config.task, task.sheet["metric"], headline)
    return grades.metrics


def advice(task: ICRTask) -> Callable[[str | None], str]:
    """The command that continues from the logged answers; what was judged already is not asked again."""
    metadata, name = dict(task.config.metadata), str(task.config.task)
    kept = {k: v for k, v in metadata.items() if k in _KEPT or (k.startswith(_OURS) and v != _HIDDEN)}
    hidden = [k for k, v in metadata.items() if k.startswith(_OURS) and _HIDDEN in str(v)]
    limit = task._limit

    def say(folder: str | None) -> str:
        samples = metadata.get("samples") or folder
        if samples is None:
            return (
                "The answers were not logged: run again with --log_samples --output_path DIR, then grade by icr-replay."
            )
        command = ["lm_eval", "--tasks", name, "--model", "icr-replay", "--model_args", f"samples={samples}"]
        command += ["--metadata", json.dumps(kept), "--log_samples", "--output_path", f"{folder or samples}-graded"]
        command += ["--limit", str(limit)] if limit is not None else []
        note = f" (with {', '.join(hidden)} as before, not shown here)" if hidden else ""
        return f"When it works again, continue with{note}:\n  {shlex.join(command)}"

    return say


_OURS = ("judge_", "xfinder_")
_KEPT = ("allow_partial", "questions_file")
