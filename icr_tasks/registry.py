"""Everything that has a name and can come from somebody else's package: one `Registry` a kind.

>>> from icr_tasks.registry import Registry, Whole
>>> cheeses = Registry("cheese")
>>> @cheeses.register("gouda", params={"months": Whole(6, low=1)})
... def gouda(): ...
>>> cheeses.get("gouda").check({"months": 12})
{'months': 12}

Our own entries register themselves when their room (a package) is imported, which happens at the first
look-up; then the packages that declare an entry point in the group `icr_tasks` are imported (`plugins`), and
what they register counts exactly as ours. Nothing here imports torch.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, TypeVar

from . import cache_types, plugins
from .errors import IcrError, unknown
from .params import Flag, Name, Number, Param, Tokens, Whole, Word, check_params

__all__ = ["Entry", "Flag", "Name", "Number", "Param", "Registry", "Tokens", "Whole", "Word"]

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered thing: `target` is the class, function or object; `params` its parameters, declared as
    data."""

    name: str
    target: T
    params: Mapping[str, Param] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(
        default_factory=dict
    )  # what the kind wants to know without touching the target
    origin: str = "icr_tasks"  # or "package version" of a plugin
    kind: str = "entry"

    @property
    def defaults(self) -> dict[str, Any]:
        """Every parameter with its default, in the order of the declaration."""
        return {name: param.default for name, param in self.params.items()}

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The given parameters as values of their types, in the order of the declaration.

        Raises IcrError naming the nearest parameter, or the range that a value is outside of.
        """
        return check_params(f"{self.kind} {self.name}", self.params, given)


class Registry(Generic[T]):
    """Names -> entries of one kind. `room` is the package whose modules register our own entries."""

    def __init__(self, kind: str, room: str | None = None, reserved: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self._room = room
        self._reserved = reserved
        self.known: dict[str, Entry[T]] = {}
        self._loaded = room is None
        plugins.watched.append(self)

    # -- adding --------------------------------------------------------------------------------------------

    def register(
        self, name: str, *, params: Mapping[str, Param] | None = None, **facts: Any
    ) -> Callable[[T], T]:
        """Decorator: `@registry.register("name", params={...}, fact=...)`."""

        def decorate(target: T) -> T:
            self.add(name, target, params=params, **facts)
            return target

        return decorate

    def add(
        self,
        name: str,
        target: T,
        *,
        params: Mapping[str, Param] | None = None,
        module: str = "",
        **facts: Any,
    ) -> Entry[T]:
        """Register `target`. Raises IcrError when the name is taken, reserved or cannot be written in a
        setting. `module` is where it is defined: what is ours stays ours where a plugin imports it first."""
        ours = module.partition(".")[0] == __name__.partition(".")[0]
        origin = plugins.origins[-1] if plugins.origins and not ours else "icr_tasks"
        if not isinstance(name, str) or not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
            raise IcrError(f"{self.kind} name {name!r}: letters, digits, '_', '-' and '.' only")
        if name in self._reserved:
            raise IcrError(f"{self.kind} {name!r} is a reserved word; choose another name")
        for key, value in (params or {}).items():
            if not isinstance(value, Param):
                raise IcrError(
                    f"{self.kind} {name!r}: parameter {key!r} must be declared as data, e.g. icr.Whole(0)"
                )
        known = self.known.get(name)
        if known is None and origin != "icr_tasks":
            self._load_room()
            known = self.known.get(name)
        if known is not None and known.target is not target and not _same(known.target, target):
            whose = "icr-tasks itself" if known.origin == "icr_tasks" else known.origin
            raise IcrError(
                f"{self.kind} {name!r} is registered twice, by {whose} and by {origin}; rename one of them"
            )
        entry = Entry(name, target, dict(params or {}), facts, origin, self.kind)
        self.known[name] = entry
        return entry

    # -- looking up ----------------------------------------------------------------------------------------

    def get(self, name: str) -> Entry[T]:
        """The entry of that name. Raises IcrError with the nearest match, and what failed to load, if
        anything did."""
        self._load()
        if name not in self.known:
            error = unknown(self.kind, name, [*self.known])
            raise IcrError(str(error) + plugins.hint()) from None
        return self.known[name]

    def __getitem__(self, name: str) -> T:
        return self.get(name).target

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self.known

    def __iter__(self) -> Iterator[str]:
        return iter([entry.name for entry in self.entries()])

    def __len__(self) -> int:
        self._load()
        return len(self.known)

    def entries(self) -> list[Entry[T]]:
        """All entries, ours first, file by file: the same whatever was imported before."""
        self._load()
        return sorted(self.known.values(), key=lambda entry: (entry.origin != "icr_tasks", _file(entry)))

    def _load(self) -> None:
        self._load_room()
        plugins.load()

    def _load_room(self) -> None:
        if self._loaded or self._room is None:
            return
        self._loaded = True  # before the import: a module of the room may look something up
        outer, plugins.origins[:] = plugins.origins[:], []
        try:
            package = import_module(self._room)
            for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
                if not found.name.startswith("_"):
                    import_module(f"{self._room}.{found.name}")
        except BaseException:
            self._loaded = False
            raise
        finally:
            plugins.origins[:] = outer


def _file(entry: Entry[Any]) -> str:
    """Where our own entry is defined; plugins keep the order in which they registered."""
    return str(getattr(entry.target, "__module__", "")) if entry.origin == "icr_tasks" else ""


def _same(one: Any, two: Any) -> bool:
    """The same definition met again (a module that was reloaded in a notebook)."""
    where = [(getattr(x, "__module__", None), getattr(x, "__qualname__", None)) for x in (one, two)]
    return None not in where[0] and where[0] == where[1]


# The kinds. Each room's modules register our own entries; design: one new file is one new entry.
BENCHMARKS: Registry[Any] = Registry("benchmark", "icr_tasks.benchmarks")
METRICS: Registry[Any] = Registry("metric", "icr_tasks.metrics")
KV_METHODS: Registry[Any] = Registry(
    "kv method", "icr_tasks.kv", reserved=("native", "task", "full", *cache_types.NATIVE)
)
RETRIEVERS: Registry[Any] = Registry("retriever", "icr_tasks.context.retrieval")
# `facts["retrieves"]`: the first step is rag@amount, whose options the route takes as well.
ROUTES: Registry[Any] = Registry(
    "route", "icr_tasks.context.routes"
)  # how `route:NAME@amount` decides, question by question
VIEWS: Registry[Any] = Registry("view", "icr_tasks.leaderboard.board.views")
EXPORTS: Registry[Any] = Registry("export", "icr_tasks.leaderboard.export")


def kv_method(
    name: str,
    *,
    frees: bool,
    budget: float | None,
    knobs: Mapping[str, Param] | None = None,
    inside: Sequence[str] | None = None,
    quiet: Sequence[str] = (),
    files: Sequence[str] = (),
    version: int = 1,
) -> Callable[[T], T]:
    """Decorator of a KV method's class, a subclass of `icr.kv.Method`.

    `frees`: True where keys are dropped after prefill, False where all are stored and a part is read.
    `budget` is the share kept or read by default; None where the method needs none. `knobs` are its
    parameters, declared as data. `inside` are knobs in tokens that the budget includes (default: sink and
    window of a method that frees), so that a budget of fewer tokens is refused. `quiet` knobs are recorded
    only where they differ from their default: one that a method gets later leaves the fingerprints of older
    runs as they are. `files` are knobs that name a file whose contents change answers: they are part of what is
    recorded. `version` counts changes of the code that change answers; from 2 on it is part of what is
    recorded, so that a changed method is another run.
    """
    held = tuple(inside) if inside is not None else ("sink", "window") if frees else ()
    return KV_METHODS.register(
        name,
        params=knobs,
        frees=frees,
        budget=budget,
        inside=held,
        quiet=tuple(quiet),
        files=tuple(files),
        version=version,
    )


def retriever(
    name: str, *, params: Mapping[str, Param] | None = None, reference: bool = False
) -> Callable[[T], T]:
    """Decorator of a retriever's class (`icr.Retriever`); `params` are its own options in
    `rag@k,NAME,option=value`.

    `reference`: nobody could serve it (it knows the gold, or chooses blindly); boards show it and never rank
    it.
    """
    return RETRIEVERS.register(name, params=params, reference=reference)


def view(name: str, *, order: int = 1000, absent: str = "") -> Callable[[T], T]:
    """Decorator of a function that makes tables of a board: `function(board) -> list[icr.Table]`, shown by
    `order`. `absent`: what the board says where there is no table."""
    return VIEWS.register(name, order=order, absent=absent)
