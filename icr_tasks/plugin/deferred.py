"""Errors that wait until everything else is saved: a judge that went away must not cost the answers of a long run.

lm_eval saves results and samples, then prints its table. With a waiting error the table is printed, then the error and
the command that continues, and the process ends with the error's exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from ..errors import IcrError


@dataclass
class _Waiting:
    errors: list[tuple[IcrError, Callable[[str | None], str]]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    unsaved: set[str] = field(default_factory=set)
    logged: bool = False


_state = _Waiting()


class Incomplete(IcrError, SystemExit):
    """Everything is saved, but something is missing. Ends an lm_eval process with `code`, without a traceback."""

    def __init__(self, message: str, code: int) -> None:
        IcrError.__init__(self, message, exit_code=code)
        self.code = code


def add(error: IcrError, advice: Callable[[str | None], str]) -> None:
    """Raise after saving. `advice` gets the folder with the logged answers, or None when they were not logged."""
    import lm_eval.loggers.evaluation_tracker as module

    from .guard import install

    install(module)  # also without the start-up hook, e.g. under --include_path
    _state.errors.append((error, advice))


def watch(method: Any, name: str) -> Any:
    """Wrap one of the tracker's two save methods; the last save raises Incomplete when errors wait."""

    @wraps(method)
    def save(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = method(self, *args, **kwargs)
        if not _state.errors:
            return out
        if name == "save_results_aggregated":
            _state.results = kwargs["results"] if "results" in kwargs else args[0]
            samples = kwargs["samples"] if "samples" in kwargs else args[1] if len(args) > 1 else None
            _state.logged = samples is not None
            _state.unsaved = set(_state.results["configs"]) if _state.logged else set()
        else:
            _state.unsaved.discard(kwargs["task_name"] if "task_name" in kwargs else args[0])
        if not _state.unsaved:
            raise _finish(str(self.output_path) if _state.logged and self.output_path else None)
        return out

    return save


def _finish(folder: str | None) -> Incomplete:
    from lm_eval.utils import make_table

    waiting, results = _state.errors.copy(), _state.results
    _state.errors.clear()
    print(make_table(results))
    if results.get("groups"):
        print(make_table(results, "groups"))
    sys.stdout.flush()
    for error, advice in waiting:
        print(f"icr: error: {error}\n{advice(folder)}", file=sys.stderr)
    where = f"saved below {folder}" if folder else "complete"
    return Incomplete(f"everything else is {where}; see above", max(error.exit_code for error, _ in waiting))
