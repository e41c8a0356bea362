"""When two runs must not be compared: every reason, with the first item that differs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from ..ledgers import todo
from ..ledgers.load import Run, TaskItems

# What a user may waive, and what is then believed instead.
WAIVABLE = {
    "prompts": "the prompts may differ although setting and prompt id are the same (another chat template)",
    "truncation": "prompts may be cut differently",
    "clusters": "items without a cluster are independent",
}
JUDGED_AT_LEAST = 0.95  # below this share of readable verdicts a task is not comparable
_IDENTITY = {
    "benchmark": "benchmark",
    "dataset": "dataset",
    "length": "length",
    "metric": "metric",
    "metric_version": "metric version",
    "data_revision": "dataset revision",
    "judge": "judge",
    "filter": "filter",
    "task_version": "task version",
}
_RESCORED = ("metric", "metric_version", "judge", "filter")


@dataclass(frozen=True)
class Refusal:
    """One reason. `check` is its name (prompts, items, ...), `task` where, `text` what differs, `fix` what to
    do."""

    check: str
    task: str
    text: str
    fix: str

    @property
    def short(self) -> str:
        """Without the remedy."""
        return f"{self.task}: {self.text}" if self.task else self.text

    def __str__(self) -> str:
        return f"{self.short}; {self.fix}"


def tasks(base: Run, new: Run) -> Iterator[Refusal]:
    """Tasks only one side has."""
    for side, run, other in (("candidate", new, base), ("baseline", base, new)):
        gone = sorted(set(other.tasks) - set(run.tasks))
        if gone:
            text = f"{len(gone)} of {len(other.tasks)} tasks missing in the {side}: {_listed(gone)}"
            yield Refusal(
                "tasks", "", text, f"--common-items leaves them out; to run them: {command(run, gone)}"
            )


def partial(side: str, run: Run) -> Iterator[Refusal]:
    """Tasks of which not every expected item is scored."""
    short = {n: t.sheet for n, t in run.tasks.items() if not t.complete}
    if short:
        counts = _listed([f"{n} {s.get('n_scored')}/{s.get('n_expected')}" for n, s in short.items()])
        text = f"the {side} is partial in {len(short)} of {len(run.tasks)} tasks: {counts}"
        yield Refusal(
            "partial", "", text, f"--common-items compares the rest; to complete: {command(run, [*short])}"
        )


def sheets(base: TaskItems, new: TaskItems) -> Iterator[Refusal]:
    """What the task is: dataset revision, metric and its version, judge, filter, task version."""
    for key, words in _IDENTITY.items():
        one, two = base.sheet.get(key), new.sheet.get(key)
        if key == "task_version":  # the letter of "2-A" is interface only
            one, two = str(one).partition("-")[0], str(two).partition("-")[0]
        if one != two:
            fix = (
                "score both again with one metric (icr-replay)"
                if key in _RESCORED
                else "evaluate both with the same one"
            )
            yield Refusal(key, base.name, f"different {words}, {one!r} and {two!r}", fix)


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
    same_setting: bool,
    allow: Collection[str],
) -> Iterator[Refusal]:
    """Per-item agreement of paired rows: targets, prompts, truncation, clusters."""
    checks = [
        (
            "targets",
            base.target_hash[b] != new.target_hash[n],
            "different gold answers",
            "use one data revision",
        )
    ]
    if same_setting and "prompts" not in allow:
        differ = (
            (base.prompt_hash[b] != new.prompt_hash[n]) & (base.prompt_hash[b] > 0) & (new.prompt_hash[n] > 0)
        )
        checks.append(
            ("prompts", differ, "different prompts under the same setting", "--allow prompts if intended")
        )
    if same_setting and "truncation" not in allow:
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
    """Items that were not sent, too many unreadable verdicts, values that are no scores, a metric nobody
    logged."""
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


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def command(run: Run, names: list[str]) -> str:
    """The lm_eval call that would complete a run."""
    return todo.command(run.head, names)
