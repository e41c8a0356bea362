"""Results that cannot be saved must end the run with an error.

lm-eval catches every error while it saves and exits 0. For runs with icr_ tasks the output folder is checked
before anything is generated, and a failed save is rescued to a temporary folder and then raised.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import weakref
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import IcrError
from . import deferred

_TRACKERS: weakref.WeakSet[Any] = weakref.WeakSet()


def install(module: ModuleType) -> None:
    """Wrap EvaluationTracker of `lm_eval.loggers.evaluation_tracker`; once."""
    tracker = module.EvaluationTracker
    if getattr(tracker, "_icr_guarded", False):
        return
    original_init = tracker.__init__

    @wraps(original_init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original_init(self, *args, **kwargs)
        _TRACKERS.add(self)

    tracker.__init__ = __init__
    for name in ("save_results_aggregated", "save_results_samples"):
        setattr(tracker, name, deferred.watch(_checked(getattr(tracker, name), module.eval_logger), name))
    tracker._icr_guarded = True


def check_output_path() -> None:
    """Raise IcrError when a live tracker's output folder cannot be written."""
    for tracker in _TRACKERS:
        path = getattr(tracker, "output_path", None)
        if not path:
            continue
        folder = Path(path).parent if str(path).endswith(".json") else Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise IcrError(
                f"--output_path {folder} cannot be written ({error.strerror}); choose another folder"
            ) from error


class _Catch(logging.Handler):
    """lm-eval logs "Could not save ..." inside its except block; there the exception is still at hand."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.caught: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Could not save"):
            self.caught = sys.exc_info()[1]


def _checked(method: Any, logger: logging.Logger) -> Any:
    @wraps(method)
    def save(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _ours([*args, *kwargs.values()]):
            return method(self, *args, **kwargs)
        catch, level = _Catch(), logger.level
        logger.addHandler(catch)
        logger.setLevel(min(level, logging.WARNING) or logging.WARNING)  # a quiet logger must not hide the failure
        try:
            out = method(self, *args, **kwargs)
        finally:
            logger.setLevel(level)
            logger.removeHandler(catch)
        if catch.caught is not None:
            saved = _rescue(args, kwargs)
            raise IcrError(f"results could not be saved below {self.output_path} ({catch.caught}); rescued to {saved}")
        return out

    return save


def _ours(given: list[Any]) -> bool:
    names = [name for g in given if isinstance(g, dict) for name in g.get("configs", ())]
    return any(str(name).startswith("icr_") for name in [*names, *(g for g in given if isinstance(g, str))])


def _rescue(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Path:
    path = Path(tempfile.mkdtemp(prefix="icr-rescue-")) / "saved.json"
    path.write_text(json.dumps({"args": list(args), "kwargs": kwargs}, default=str), encoding="utf-8")
    return path
