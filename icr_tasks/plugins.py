"""Somebody else's benchmarks, metrics, KV methods, retrievers and views: packages with an entry point in
group `icr_tasks`.

    [project.entry-points."icr_tasks"]
    my = "my_pkg.icr"

Such a module is imported before any name is resolved. `ICR_PLUGINS=off` imports none, `ICR_PLUGINS=my,other`
only those. A plugin that cannot be imported registers nothing, is named once on stderr, and disturbs nothing
else.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module, metadata
from typing import Any

from .errors import IcrError

GROUP = "icr_tasks"
VARIABLE = "ICR_PLUGINS"
log = logging.getLogger("icr_tasks")
_found: dict[str, str] | None = None  # entry point name -> "distribution version"
_failed: dict[str, str] = {}
watched: list[Any] = []  # every Registry
origins: list[str] = []  # the plugin whose module is being imported, innermost last


def load() -> dict[str, str]:
    """Import the plugins once a process. Returns those in use: entry point name -> "distribution version"."""
    global _found
    if _found is None:
        _found = {}  # before the imports: a plugin may look names up
        for point in _wanted():
            _import(point)
    return dict(_found)


def failed() -> dict[str, str]:
    """Entry point name -> why it could not be used."""
    return dict(_failed)


def hint() -> str:
    """A clause for messages about unknown names: what failed to load, or that plugins are switched off."""
    if _failed:
        name, why = next(iter(_failed.items()))
        return f" (plugin {name!r} could not be loaded: {why})"
    if os.environ.get(VARIABLE):
        return f" ({VARIABLE}={os.environ[VARIABLE]} limits which plugins are imported)"
    return ""


def _wanted() -> list[metadata.EntryPoint]:
    asked = os.environ.get(VARIABLE, "").strip()
    if asked.lower() == "off":
        return []
    points = sorted(metadata.entry_points(group=GROUP), key=lambda p: (p.name, p.value))
    if not asked:
        return points
    names = [name.strip() for name in asked.split(",") if name.strip()]
    for name in names:
        if name not in {p.name for p in points}:
            _fail(
                name,
                f"{VARIABLE} names it, but no installed package declares it; pip install it or correct the name",
            )
    return [p for p in points if p.name in names]


def _import(point: metadata.EntryPoint) -> None:
    assert _found is not None
    origin = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
    if point.name in _found:
        return _fail(
            point.name, f"two packages declare a plugin of this name ({_found[point.name]} and {origin})"
        )
    try:
        with registering(origin):
            import_module(point.value.partition(":")[0])
    except IcrError as error:
        return _fail(point.name, str(error))
    except Exception as error:  # any error of somebody else's module is that module's, named once
        return _fail(point.name, f"{type(error).__name__}: {error}")
    _found[point.name] = origin
    return None


def _fail(name: str, why: str) -> None:
    if name not in _failed:
        _failed[name] = why
        log.warning("plugin %r is not used: %s", name, why)


class registering:
    """Context: what is registered inside comes from `origin`; all of it is taken back when the body
    raises."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def __enter__(self) -> registering:
        self._before = [(registry, dict(registry.known)) for registry in watched]
        origins.append(self.origin)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        origins.pop()
        if kind is not None:
            for registry, entries in self._before:
                ours = {n: e for n, e in registry.known.items() if e.origin == "icr_tasks"}
                registry.known = {**ours, **entries}
