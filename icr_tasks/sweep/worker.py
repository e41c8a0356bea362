"""A process that works on cells: `python -m icr_tasks.sweep.worker STUDY OUT CELL,CELL... [SHARD]` is what
executors start; it runs these cells and exits."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..engines.answers import CannotStore
from ..errors import IcrError
from . import records, study
from .cells import Cell, matrix
from .engine import Load, check_names
from .records import Folder
from .runner import Runner
from .sharding import ShardRunner, run_shard
from .shards import Shard


@contextmanager
def on_terminate() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, which schedulers send before they kill, inside the block; main thread
    only.

    SIGINT stays as it was inherited: a shell script starts background commands with SIGINT ignored.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: Any) -> None:
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # a scheduler's reaches the whole group, and us through our parent too
    raise KeyboardInterrupt


def run_cells(
    found: study.Study, todo: list[Cell], shard: Shard | None = None, load: Load | None = None
) -> int:
    """Run cells in this process, or one shard of them: 0, 1 when a cell failed, 2 when the disk is full, 130 when
    interrupted. `load` makes their models where lm-eval's registry does not."""
    with on_terminate():
        return _run(found, todo, shard, load)


def _run(found: study.Study, todo: list[Cell], shard: Shard | None, load: Load | None) -> int:
    check_names(sorted({cell.engine for cell in todo}))
    folder = Folder(found.out)
    every = matrix(found)
    runner = Runner(folder, todo, load) if shard is None else ShardRunner(folder, todo, shard, every)
    again = found.again(*(("--shard", str(shard)) if shard else ()))
    try:
        if isinstance(runner, ShardRunner):
            failed = run_shard(runner)
        else:
            failed = runner.run()
            records.write(folder, every)
    except KeyboardInterrupt:
        runner.progress.say(f"interrupted: finished answers are in {folder.answers}; go on with: {again}")
        return 130
    except CannotStore as error:
        runner.progress.say(f"stopped: {error}")
        return 2
    return int(bool(failed))


def main(argv: list[str]) -> int:
    """Worker process."""
    found = study.load(Path(argv[0]), Path(argv[1]))
    names = set(argv[2].split(","))
    shard = Shard.parse(argv[3]) if len(argv) > 3 else None
    return run_cells(found, [cell for cell in matrix(found) if cell.fingerprint in names], shard)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except IcrError as problem:
        print(f"icr: error: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
