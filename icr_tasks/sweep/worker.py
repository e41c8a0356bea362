"""`python -m icr_tasks.sweep.worker STUDY OUT CELL,CELL...`: what executors start; runs these cells and exits."""

from __future__ import annotations

import sys
from pathlib import Path

from ..errors import IcrError
from ..models.store import CannotStore
from . import cells, engine, ledgers, study
from .records import Folder
from .runner import Runner
from .stop import on_terminate


def run(found: study.Study, todo: list[cells.Cell]) -> int:
    """Run cells in this process: 0, 1 when a cell failed, 2 when the disk is full, 130 when interrupted."""
    with on_terminate():
        return _run(found, todo)


def _run(found: study.Study, todo: list[cells.Cell]) -> int:
    engine.import_plugins(found.imports, str(found.path.resolve().parent))
    engine.check_names(sorted({cell.engine for cell in todo}))
    folder = Folder(found.out)
    runner = Runner(folder, todo)
    try:
        failed = runner.run()
        ledgers.write(folder)
    except KeyboardInterrupt:
        runner.progress.say(
            f"interrupted: finished answers are in {folder.answers}; go on with: icr sweep {found.path}"
        )
        return 130
    except CannotStore as error:
        runner.progress.say(f"stopped: {error}")
        return 2
    return int(bool(failed))


def main(argv: list[str]) -> int:
    """Worker process."""
    found = study.load(Path(argv[0]), Path(argv[1]))
    names = set(argv[2].split(","))
    return run(found, [cell for cell in cells.matrix(found) if cell.fingerprint in names])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except IcrError as problem:
        print(f"icr: error: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
