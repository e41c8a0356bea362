"""When two runs must not be compared: every reason, with the first item that differs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from ..ledgers import todo
from ..ledgers.load import Run, TaskItems
from ..text.names import listed
from . import axes
from .axes import Refusal

# What a user may waive, and what is then believed instead.
WAIVABLE = {
    "prompts": "the prompts may differ, by their id or although setting and prompt id are the same",
    "truncation": "prompts may be cut differently",
    "clusters": "items without a cluster are independent",
    "template": "the chat template may be another one",
    "dtype": "the model's dtype may be another one",
    "thinking": "the model's thoughts may be switched otherwise",
}
JUDGED_AT_LEAST = 0.95  # below this share of readable verdicts a task is not comparable


def tasks(base: Run, new: Run) -> Iterator[Refusal]:
    """Tasks only one side has."""
    for side, run, other in (("candidate", new, base), ("baseline", base, new)):
        gone = sorted(set(other.tasks) - set(run.tasks))
        if gone:
            text = f"{len(gone)} of {len(other.tasks)} tasks missing in the {side}: {listed(gone)}"
            yield Refusal(
                "tasks", "", text, f"--common-items leaves them out; to run them: {command(run, gone)}"
            )


def partial(side: str, run: Run) -> Iterator[Refusal]:
    """Tasks of which not every expected item is scored."""
    short = {n: t.sheet for n, t in run.tasks.items() if not t.complete}
    if short:
        counts = listed([f"{n} {s.get('n_scored')}/{s.get('n_expected')}" for n, s in short.items()])
        text = f"the {side} is partial in {len(short)} of {len(run.tasks)} tasks: {counts}"
        yield Refusal(
            "partial", "", text, f"--common-items compares the rest; to complete: {command(run, [*short])}"
        )


def sheets(
    base: TaskItems, new: TaskItems, heads: tuple[Run, Run], axis: Collection[str], allow: Collection[str]
) -> list[Refusal]:
    """What the tasks and their runs are: `axes.comparable` without the digests of items, which `rows` looks
    at one by one."""
    one, two = axes.identity(base, heads[0].head), axes.identity(new, heads[1].head)
    return axes.comparable(one, two, axis, allow)


def items(base: TaskItems, new: TaskItems, at_base: np.ndarray, at_new: np.ndarray) -> Iterator[Refusal]:
    """Item sets; `at_*` are the rows that found a partner."""
    for side, task, paired in (("baseline", base, at_base), ("candidate", new, at_new)):
        alone = np.setdiff1d(np.arange(len(task)), paired)
        if len(alone):
            first = f"{task.item[alone[0]]} (occurrence {task.occ[alone[0]]})"
            text = f"different items, {len(alone)} only in the {side}, first {first}"
            yield Refusal("items", task.name, text, "--common-items compares the rest")


def rows(
    base: TaskItems,
    new: TaskItems,
    b: np.ndarray,
    n: np.ndarray,
    *,
    free: Collection[str],
    allow: Collection[str],
) -> Iterator[Refusal]:
    """Per-item agreement of paired rows: targets, prompts, truncation, clusters; not of what is `free` on the
    axis."""
    checks = [
        (
            "targets",
            base.target_hash[b] != new.target_hash[n],
            "different gold answers",
            "use one data revision",
        )
    ]
    if "context" not in free and not {"prompts", "template"} & set(allow):
        differ = (
            (base.prompt_hash[b] != new.prompt_hash[n]) & (base.prompt_hash[b] > 0) & (new.prompt_hash[n] > 0)
        )
        checks.append(
            ("prompts", differ, "different prompts under the same setting", "--allow prompts if intended")
        )
    if "truncation" not in free and "truncation" not in allow:
        differ = base.truncated[b] != new.truncated[n]
        checks.append(
            ("truncation", differ, "cut in one run only", "use one max_model_len, or --allow truncation")
        )
    if "clusters" not in allow:
        differ = (base.cluster[b] != new.cluster[n]) | (base.cluster[b] == "")
        checks.append(
            ("clusters", differ, "no common cluster label", "--allow clusters if items are independent")
        )
    for check, differ, what, fix in checks:
        if differ.any():
            first = base.item[b][differ][0]
            yield Refusal(
                check, base.name, f"{what}, {np.count_nonzero(differ)} of {len(b)} items, first {first}", fix
            )


def scores(side: str, task: TaskItems, metric: str) -> Iterator[Refusal]:
    """Items that were not sent, too many unreadable verdicts, values that are no scores or the better the lower
    they are, a metric nobody logged."""
    if metric not in task.score:
        known = ", ".join(task.score) or "no scores"
        text = f"no item of the {side} has the metric {metric!r}, only {known}"
        yield Refusal("metric", task.name, text, "score it again with icr-replay")
        return
    score = task.score[metric]
    if task.errors:
        row = min(task.errors)
        text = (
            f"{len(task.errors)} items not scored in the {side}, first {task.item[row]} ({task.errors[row]})"
        )
        yield Refusal("partial", task.name, text, "--common-items compares the rest")
    unread = np.count_nonzero(np.isnan(score)) - sum(bool(np.isnan(score[i])) for i in task.errors)
    if unread > (1 - JUDGED_AT_LEAST) * len(score):
        text = f"{unread} of {len(score)} items have no {metric!r} in the {side}"
        yield Refusal("unscored", task.name, text, "score it again with icr-replay")
    wrong = np.flatnonzero((score < 0) | (score > 1))
    if len(wrong):
        text = f"{metric!r} is {score[wrong[0]]:g} at {task.item[wrong[0]]} in the {side}"
        yield Refusal("range", task.name, text, "a score lies between 0 and 1; choose another --metric")
    if task.backwards(metric):
        text = f"of {metric!r} a lower value is the better one"
        yield Refusal(
            "direction", task.name, text, "a higher score is the better one; choose another --metric"
        )


def command(run: Run, names: list[str]) -> str:
    """The lm_eval call that would complete a run."""
    return todo.command(run.head, names)
