"""Errors that wait until everything else is saved: a judge that went away must not cost the answers of a long
run.

lm_eval saves results and samples, then prints its table. With a waiting error the table is printed, then the
error and the command that continues, and the process ends with the error's exit code.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from ..credentials import redacted
from ..errors import IcrError

# ---- guard ---------------------------------------------------------------------------------------
# Results that cannot be saved must end the run with an error.

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
        setattr(tracker, name, watch(_checked(getattr(tracker, name), module.eval_logger), name))
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
    """lm_eval catches what goes wrong while it saves and logs a line about it; inside that line the exception
    is still at hand, whatever the line says."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.caught: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.caught = self.caught or sys.exc_info()[1]


def _checked(method: Any, logger: logging.Logger) -> Any:
    @wraps(method)
    def save(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _ours([*args, *kwargs.values()]):
            return method(self, *args, **kwargs)
        _hide(method.__name__, args, kwargs)
        catch, level, before = _Catch(), logger.level, _files(self.output_path)
        logger.addHandler(catch)
        logger.setLevel(
            min(level, logging.WARNING) or logging.WARNING
        )  # a quiet logger must not hide the failure
        try:
            out = method(self, *args, **kwargs)
        finally:
            logger.setLevel(level)
            logger.removeHandler(catch)
        made = {path for path, state in _files(self.output_path).items() if before.get(path) != state}
        why = catch.caught or (_unwritten(made, args, kwargs) if self.output_path else None)
        if why is not None:
            saved = _rescue(args, kwargs)
            raise IcrError(f"results could not be saved below {self.output_path} ({why}); rescued to {saved}")
        return out

    return save


def _files(output_path: Any) -> dict[Path, tuple[int, int]]:
    """Size and time of lm_eval's files in an output folder, or beside an output file."""
    if not output_path:
        return {}
    folder = Path(output_path).parent if str(output_path).endswith(".json") else Path(output_path)
    found = {path: path.stat() for pattern in ("*.json*", "*/*.json*") for path in folder.glob(pattern)}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def _unwritten(made: set[Path], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """What of a save did not reach the disk, judged by the files themselves: upstream may log it or not."""
    given = [*args, *kwargs.values()]
    if any(isinstance(g, dict) and "configs" in g for g in given):
        return (
            None if any(_whole(path) for path in made if path.suffix == ".json") else "no whole results file"
        )
    task = next((g for g in given if isinstance(g, str)), "")
    rows = next((g for g in given if isinstance(g, list)), [])
    written = [path.read_bytes().count(b"\n") for path in made if path.suffix == ".jsonl"]
    return (
        None
        if len(rows) in written
        else f"{max(written, default=0)} of {len(rows)} samples of {task} written"
    )


def _whole(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())  # lm_eval writes NaN where an error is not known
    except (OSError, ValueError):
        return False
    return True


def _hide(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Take credentials out of what lm_eval is about to write: it logs every model argument as it was given.

    Only the record of the results is changed, not the caller's arguments; the command line prints its own
    after saving and ends, so there the arguments themselves go.
    """
    if name != "save_results_aggregated":
        return
    results = kwargs["results"] if "results" in kwargs else args[0]
    given = results.get("config") or {}
    if isinstance(shared := given.get("model_args"), dict) and _from_command_line():
        shared.update(redacted(shared))
    results["config"] = redacted(given)


def _from_command_line() -> bool:
    frame = sys._getframe(1)
    while frame := frame.f_back:  # type: ignore[assignment]
        if str(frame.f_globals.get("__name__")).startswith(("lm_eval._cli", "lm_eval.__main__")):
            return True
    return False


def _ours(given: list[Any]) -> bool:
    names = [name for g in given if isinstance(g, dict) for name in g.get("configs", ())]
    return any(str(name).startswith("icr_") for name in [*names, *(g for g in given if isinstance(g, str))])


def _rescue(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Path:
    path = Path(tempfile.mkdtemp(prefix="icr-rescue-")) / "saved.json"
    path.write_text(json.dumps({"args": list(args), "kwargs": kwargs}, default=str), encoding="utf-8")
    return path


@dataclass
class _Waiting:
    errors: list[tuple[IcrError, Callable[[str | None], str], str | None]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    unsaved: set[str] = field(default_factory=set)
    logged: bool = False


_state = _Waiting()


class Incomplete(IcrError, SystemExit):
    """Everything is saved, but something is missing. Ends an lm_eval process with `code`, without a
    traceback."""

    def __init__(self, message: str, code: int) -> None:
        IcrError.__init__(self, message, exit_code=code)
        self.code = code


def begin(task: str) -> None:
    """A run of this task starts: errors that wait for the results of an earlier one, which nobody saved, are
    that run's and not this one's."""
    _state.errors = [waiting for waiting in _state.errors if waiting[2] != task]


def add(error: IcrError, advice: Callable[[str | None], str], task: str | None = None) -> None:
    """Raise after the results of `task` are saved. `advice` gets the folder with the logged answers, or None
    when they were not logged."""
    import lm_eval.loggers.evaluation_tracker as module

    install(module)  # also without the start-up hook, e.g. under --include_path
    _state.errors.append((error, advice, task))


def nothing(task: str, failed: Mapping[str, str], n: int) -> None:
    """Where all `n` items of a task failed: once the results are saved, the command says why and does not end with 0."""
    if 0 < n <= len(failed):
        add(IcrError(f"{task}: no item has a score: {[*failed.values()][-1]}"), lambda folder: "", task)


def watch(method: Any, name: str) -> Any:
    """Wrap one of the tracker's two save methods; the last save raises Incomplete when errors wait."""

    @wraps(method)
    def save(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = method(self, *args, **kwargs)
        if not _state.errors:
            return out
        if name == "save_results_aggregated":
            _state.results = kwargs["results"] if "results" in kwargs else args[0]
            tasks = (None, *_state.results["configs"])
            _state.errors = [waiting for waiting in _state.errors if waiting[2] in tasks]
            samples = kwargs["samples"] if "samples" in kwargs else args[1] if len(args) > 1 else None
            _state.logged = samples is not None
            _state.unsaved = set(_state.results["configs"]) if _state.logged else set()
        else:
            _state.unsaved.discard(kwargs["task_name"] if "task_name" in kwargs else args[0])
        if _state.errors and not _state.unsaved:
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
    for error, advice, _ in waiting:
        print(f"icr: error: {error}\n{advice(folder)}".rstrip(), file=sys.stderr)
    where = f"saved below {folder}" if folder else "complete"
    return Incomplete(f"everything else is {where}; see above", max(error.exit_code for error, *_ in waiting))
