"""Sweeps in forked children that are killed where files change, half-way through writes and at random times.

Forking after the imports makes a run cost a second, so twenty kills fit a test.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icr_tasks.cli import main


class Death:
    """Counts events that change the disk, or ask the model; kills this process at event `at`, `half` through
    it."""

    def __init__(self, at: int, half: bool) -> None:
        self.seen, self.at, self.half = 0, at, half

    def __call__(self, do_half: Callable[[], Any] | None = None) -> None:
        self.seen += 1
        if self.seen == self.at:
            if self.half and do_half is not None:
                do_half()
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Wrap what the sweep uses to change files, and the model's answers."""
        import sweep_models

        write, write_bytes, one = os.write, Path.write_bytes, sweep_models.Counting._one

        def os_write(handle: int, data: bytes) -> int:
            self(lambda: write(handle, data[: len(data) // 2]))
            return write(handle, data)

        def path_write_bytes(path: Path, data: bytes) -> int:
            self(lambda: write_bytes(path, data[: len(data) // 2]))
            return write_bytes(path, data)

        def answer(model: Any, request: Any) -> str:
            self()
            return one(model, request)

        os.write, Path.write_bytes, sweep_models.Counting._one = os_write, path_write_bytes, answer
        for name in ("rename", "replace", "ftruncate"):
            setattr(os, name, self._before(getattr(os, name)))

    def _before(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self()
            return original(*args, **kwargs)

        return call


def child(
    study: Path, out: Path, *more: str, before: Callable[[], Any] = lambda: None, log: Path | None = None
) -> int:
    """Start the sweep in a fork, its words going to `log`; returns the process id. `before` runs in the
    child."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        signal.alarm(300)  # a hanging child must not outlive the test
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # ignored where a script started the tests with `&`
        with (log or out.with_name(f"{out.name}.log")).open("a", buffering=1) as words:
            sys.stdout = sys.stderr = words
            before()
            code = main(["sweep", str(study), "-o", str(out), *more])
    finally:
        os._exit(code)


def finish(pid: int) -> int:
    """Exit code of the child; negative when a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_events(study: Path, out: Path) -> int:
    """An undisturbed sweep, and the number of events in it."""
    death, (read, write) = Death(0, False), os.pipe()
    original = os.write

    def before() -> None:
        death.install()
        atexit = os._exit

        def leave(code: int) -> None:
            original(write, str(death.seen).encode())
            atexit(code)

        os._exit = leave

    pid = child(study, out, before=before)
    os.close(write)
    code, seen = finish(pid), os.read(read, 20)
    os.close(read)
    assert code == 0, f"the undisturbed sweep ended with {code}"
    return int(seen)


def kill_often(
    study: Path, folder: Path, kills: int, seed: int, events: int, seconds: float
) -> dict[str, Any]:
    """Kill sweeps until `kills` died, at events of the disk or after random times; then let the last one
    finish.

    A folder that is complete is kept as `round-N`, and the next sweep starts from nothing.
    """
    rng = random.Random(seed)
    killed, rounds, log = 0, 0, []
    while killed < kills:
        by_time = rng.random() < 0.3
        death = Death(0 if by_time else rng.randint(1, max(2, events // 6)), rng.random() < 0.5)
        pid = child(study, folder / f"round-{rounds}", before=death.install)
        if by_time:
            time.sleep(rng.uniform(0, seconds / 3))
            os.kill(pid, signal.SIGKILL)
        code = finish(pid)
        log.append((rounds, death.at, code))
        killed += code == -signal.SIGKILL
        rounds += code == 0
        assert code in (0, -signal.SIGKILL), f"a sweep ended with {code}: {log}"
    code = finish(child(study, folder / f"round-{rounds}"))
    assert code == 0, f"the last sweep ended with {code}: {log}"
    return {"killed": killed, "rounds": rounds + 1, "log": log}


def ledgers(out: Path) -> dict[str, Any]:
    """Every ledger of a study folder: the items' bytes and run.json without times."""
    found: dict[str, Any] = {}
    for path in sorted((out / "results").rglob("run.json")):
        run = json.loads(path.read_text())
        for name in ("seconds", "started"):
            run.pop(name)
        for sheet in run["tasks"].values():
            for name in ("evaluated", "seconds"):
                sheet.pop(name, None)
        items = (path.parent / "items.jsonl.gz").read_bytes()
        found[str(path.parent.relative_to(out))] = (hashlib.sha256(items).hexdigest(), run)
    return found
