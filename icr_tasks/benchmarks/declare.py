"""What a benchmark says of itself, as data: `@benchmark(...)` on a class, in our files and in somebody
else's.

    @icr.benchmark("babilong", title="BABILong", units="passages", marks_gold=True, chance=None,
                   metrics=icr.metrics.QA, prompts=icr.prompts.HELMET, source="RMT-team/babilong")
    class Babilong:
        tasks = icr.grid(dataset=["qa1"], length=["4k", "8k"])
        def load(self, dataset, length, **options) -> icr.ItemSet: ...
        def files(self, dataset, length) -> list[icr.Remote]: ...

The YAMLs that lm-eval reads follow from it (`benchmarks.sheets`), and so does everything else that has to
know a benchmark: `icr data fetch`, `prepare`, `sweep`, `score`, `rank`, the board. What a benchmark has not,
it says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import plugins
from ..errors import IcrError, unknown
from ..metrics import scorers
from ..registry import BENCHMARKS, METRICS
from .base import Item, ItemSet, Prompt
from .fetch import Remote

UNITS = ("passages", "documents")
_MISSING: Any = object()


@dataclass(frozen=True)
class Task:
    """One leaf task: a dataset at a length. `facts` stand in its data sheet; `name` is given where the rule
    `icr_<benchmark>_<dataset>_<length>` does not hold."""

    dataset: str = "all"
    length: str | None = None
    name: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[str] | None = None  # where they differ from the benchmark's
    version: str = "1-A"  # N-X: N where scores stop being comparable, X where only the interface changed


@dataclass(frozen=True)
class Group:
    """A group of tasks (or groups) under one name; `metric` is averaged over them, equally weighted."""

    name: str
    title: str
    tasks: Sequence[str]
    metric: str | None = None


def grid(
    dataset: Iterable[str] = ("all",),
    length: Iterable[str | None] = (None,),
    *,
    version: str = "1-A",
    **facts: Any,
) -> list[Task]:
    """All pairs of datasets and lengths as tasks.

    >>> [t.length for t in grid(dataset=["qa1"], length=["4k", "8k"])]
    ['4k', '8k']
    """
    return [Task(d, size, facts=facts, version=version) for d, size in itertools.product(dataset, length)]


def name_of(base: str, task: Task) -> str:
    """The task's name, where the benchmark's tasks begin with `base`."""
    dataset = [task.dataset] if task.dataset != "all" else []
    return task.name or "_".join([base, *dataset, *([task.length] if task.length else [])])


def whole(name: str, title: str, tasks: Iterable[Task], metric: str | None = None) -> Group:
    """All tasks of a benchmark as a group under the name that theirs begin with.

    >>> whole("icr_babilong", "BABILong", grid(dataset=["qa1"], length=["4k", "8k"])).tasks
    ['icr_babilong_qa1_4k', 'icr_babilong_qa1_8k']
    """
    return Group(name, title, [name_of(name, task) for task in tasks], metric)


@dataclass(frozen=True)
class Benchmark:
    """A declared benchmark. `load` reads items; `files` lists what a dataset at a length needs from elsewhere
    (None: nothing has to be fetched)."""

    name: str
    title: str
    units: str
    marks_gold: bool
    chance: Mapping[str, float] | float | None
    metrics: tuple[str, ...]
    prompts: Mapping[str, Any]
    tasks: tuple[Task, ...]
    groups: tuple[Group, ...]
    facts: Mapping[str, Any]
    load: Callable[..., ItemSet]
    files: Callable[[str, str | None], list[Remote]] | None
    demos: Callable[[Item], str] | None = None  # demonstrations of a prompt that has {demos}
    aliases: tuple[str, ...] = ()
    suite: bool | str = False  # the version of the suite whose average it enters
    counted: str = ""  # what the files hold in all, where no single task has a fixed number (`n`)
    origin: str = "icr_tasks"

    # -- tasks ---------------------------------------------------------------------------------------------

    def task_name(self, task: Task) -> str:
        """`icr_<benchmark>_<dataset>_<length>`, without a dataset that is `all`."""
        return name_of(f"icr_{self.name}", task)

    def sheet(self, task: Task) -> dict[str, Any]:
        """The data sheet of a leaf task, as it stands in its YAML."""
        metrics = tuple(task.metrics or self.metrics)
        place = {
            "benchmark": self.name,
            "dataset": task.dataset,
            **({"length": task.length} if task.length else {}),
        }
        defaults = {"metric": metrics[0], "metric_version": 1, "scorer": scorers.of(metrics)}
        return {**place, **defaults, **self.facts, **task.facts}

    def about(self, dataset: str) -> dict[str, Any]:
        """What reports need to know of the benchmark; goes into the results of every run."""
        return {
            "title": self.title,
            "units": self.units,
            "marks_gold": self.marks_gold,
            "chance": self.chance_of(dataset),
            "suite": self.suite,
            "origin": self.origin,
        }

    def chance_of(self, dataset: str) -> float | None:
        """Share of right answers by guessing, 0 to 1; None where guessing gives nothing."""
        return self.chance.get(dataset) if isinstance(self.chance, Mapping) else self.chance

    # -- prompts -------------------------------------------------------------------------------------------

    def prompt_table(self, dataset: str | None = None) -> dict[str, Prompt]:
        """All prompts (of one dataset where they differ by dataset), the default first."""
        return dict(self.prompts.get(dataset, self.prompts) if dataset is not None else self.prompts)

    def prompt(self, name: str | None = None, dataset: str | None = None) -> Prompt:
        """The prompt of that name (None: the default). Raises IcrError with the nearest match."""
        known = self.prompt_table(dataset)
        if name is not None and name not in known:
            raise unknown(f"{self.name} prompt", name, known)
        return known[name or next(iter(known))]


def benchmark(
    name: str,
    *,
    title: str,
    units: str = _MISSING,
    marks_gold: bool = _MISSING,
    chance: Mapping[str, float] | float | None = _MISSING,
    metrics: Sequence[str],
    prompts: Mapping[str, Any],
    suite: bool | str = False,
    aliases: Sequence[str] = (),
    **facts: Any,
) -> Callable[[type], type]:
    """Register a class with `tasks`, `load`, `files` (or `files = None`) and, if it likes, `groups` and
    `demos`.

    `units`: "passages" (ready pieces) or "documents" (long texts that retrieval has to cut). `marks_gold`:
    whether units say that they hold the answer. `chance`: share right by guessing (a mapping where it differs
    by dataset), None for none. `facts` stand in every data sheet (source, revision, license, cluster ...).
    Raises IcrError that names what is missing: half a benchmark is never registered.
    """
    given = {"units": units, "marks_gold": marks_gold, "chance": chance}
    absent = [key for key, value in given.items() if value is _MISSING]

    def decorate(cls: type) -> type:
        missing = absent + [key for key in ("tasks", "load", "files") if not hasattr(cls, key)]
        if missing:
            raise IcrError(
                f"benchmark {name!r} does not say {', '.join(missing)}; what it has not is written so, "
                "e.g. marks_gold=False, chance=None, files = None"
            )
        if units not in UNITS:
            raise unknown(f"benchmark {name!r} units", str(units), UNITS)
        unmade = [m for m in metrics if m not in METRICS and not scorers.known(m)]
        if unmade or not metrics:
            why = f"unknown metric {unmade[0]!r}" if unmade else "no metric"
            raise IcrError(f"benchmark {name!r}: {why}; use icr.metrics.QA or register it with @icr.metric")
        if not prompts:
            raise IcrError(
                f"benchmark {name!r} has no prompt; use icr.prompts.HELMET or name one of your own"
            )
        self = cls()
        made = Benchmark(
            name,
            title,
            units,
            marks_gold,
            chance,
            tuple(metrics),
            prompts,
            tuple(self.tasks),
            tuple(getattr(self, "groups", ())),
            facts,
            self.load,
            self.files,
            getattr(self, "demos", None),
            tuple(aliases),
            suite,
            getattr(self, "counted", ""),
        )
        if not made.tasks:
            raise IcrError(
                f"benchmark {name!r} has no tasks; e.g. tasks = icr.grid(dataset=['a'], length=['4k'])"
            )
        entry = BENCHMARKS.add(name, made, module=cls.__module__)
        object.__setattr__(made, "origin", entry.origin)
        return cls

    return decorate


def get(name: str) -> Benchmark:
    """The benchmark of that name or alias. Raises IcrError with the nearest match."""
    for found in all_benchmarks():
        if name == found.name or name in found.aliases:
            return found
    known = [word for found in all_benchmarks() for word in (found.name, *found.aliases)]
    raise IcrError(str(unknown("benchmark", name, known)) + plugins.hint())


def all_benchmarks() -> list[Benchmark]:
    """Every benchmark: ours in the paper's order and then by name, whatever was imported first; then those of
    plugins."""
    found: list[Benchmark] = [entry.target for entry in BENCHMARKS.entries()]

    def place(b: Benchmark) -> tuple[bool, int, str]:
        own = b.origin == "icr_tasks"
        return not own, ORDER.index(b.name) if b.name in ORDER else len(ORDER), b.name if own else ""

    return sorted(found, key=place)


ORDER = ("helmet_rag", "infbench", "longbench_v2", "loong_fin", "synth")
