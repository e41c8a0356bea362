"""Bring the chosen cells of a study to their end, whatever ran before. `icr sweep` and training call it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ..errors import IcrError
from . import costs, records, sharding, shards
from .cells import Cell, matrix
from .executors import EXECUTORS, local, parts, ray
from .records import Folder
from .shards import Shard
from .study import Study
from .worker import run_cells


def run(found: Study, chosen: Sequence[Cell], executor: str = "local", jobs: int = 1) -> int:
    """Answer what is not answered yet, `jobs` engines at once, and write the records and the summary.

    0 when every chosen cell is done, 1 when one is not (the others are kept), 2 for bad input, 130 when
    interrupted.
    """
    folder = Folder(found.out)
    todo = _todo(folder, chosen)
    print(f"{len(chosen)} cells, {len(chosen) - len(todo)} done before", file=sys.stderr)
    code = 0
    if executor == "ray" and todo:
        code, todo = ray(found, list(todo), jobs), []
    for n in sorted({c.replicas for c in todo if c.replicas > 1}):
        code = code or _replicated(found, [c for c in todo if c.replicas == n], n, executor, jobs)
    if todo := [c for c in todo if c.replicas == 1]:
        split = parts(list(todo), jobs)
        if executor == "local" and len(split) == 1:
            code = run_cells(found, list(todo))
        else:
            # One process an engine: an engine's memory is surely free again only when its process has ended.
            code = int(bool(EXECUTORS[executor](found, split, jobs)))
    if code in (2, 130):
        return code
    print(records.write(folder, matrix(found), show=True))
    for line in costs.said(chosen, folder.answers):
        print(line)
    left = _todo(folder, chosen)
    for cell in left:
        record = folder.record(cell.fingerprint) or {"reason": "not run"}
        print(f"not done: {cell.name}: {record.get('reason')}", file=sys.stderr)
    if left:
        print(
            f"{len(left)} of {len(chosen)} cells are not done; `icr status {found.spelled}` shows why; go on with: "
            f"{found.again()}",
            file=sys.stderr,
        )
    return 1 if left else code


def _todo(folder: Folder, chosen: Sequence[Cell]) -> list[Cell]:
    return [c for c in chosen if not folder.done(c)]


def _replicated(found: Study, todo: list[Cell], n: int, executor: str, jobs: int) -> int:
    """Cells with data_parallel_size=n: n engines at once, each with its share of the items."""
    if executor != "local":
        raise IcrError(
            f"data_parallel_size={n} with --executor {executor}: leave it out and start {n} jobs with --shard i/{n}"
        )
    split = parts(todo, jobs)
    with ExitStack() as held:
        each = [Shard(i + 1, n) for i in range(n)]
        for one in each:
            held.enter_context(sharding.begin(found, one))
        todo_each = [part for part in split for _ in each]
        return int(bool(local(found, todo_each, n * jobs, [s for _ in split for s in each])))


def shard(found: Study, chosen: Sequence[Cell], which: Shard, jobs: int = 1) -> int:
    """Answer one shard's share of the chosen cells; the last shard of a folder scores them.

    0 when the share is answered, 1 when some of it is not, 2 for bad input, 130 when interrupted.
    """
    with sharding.begin(found, which):
        folder = Folder(found.out)
        todo = _todo(folder, chosen)
        if more := next((c for c in todo if c.replicas > 1), None):
            raise IcrError(
                f"{more.name}: data_parallel_size under --shard: leave it out and take {more.replicas} times as many "
                "shards"
            )
        print(f"shard {which}: {len(chosen)} cells, {len(chosen) - len(todo)} done before", file=sys.stderr)
        split = parts(todo, jobs) if todo else []
        if len(split) > 1:
            code = int(bool(local(found, split, jobs, [which] * len(split))))
        else:
            code = run_cells(found, todo, which) if todo else 0
        if code in (2, 130):
            return code
        left = _todo(folder, chosen)
        if not left:
            print(records.write(folder, matrix(found), show=True))
        else:
            _waiting(found, sharding.lacking(found, left), folder, left)
    if code:
        print(
            f"shard {which} is not done; go on with: {found.again('--shard', str(which))}",
            file=sys.stderr,
        )
    return code


def merge(found: Study, chosen: Sequence[Cell], folders: Sequence[Path], jobs: int = 1) -> int:
    """Join the shards of the study's folder and of these folders, and score what all of them answered.

    0 when every chosen cell is done, 1 when one is not. Raises IcrError for shards that are not parts of one run.
    """
    sharding.gather(found, folders)
    folder = Folder(found.out)
    lacking = sharding.lacking(found, _todo(folder, chosen))
    waiting = {cell.fingerprint for cells in lacking.values() for cell in cells}
    code = run(found, [cell for cell in chosen if cell.fingerprint not in waiting], jobs=jobs)
    if code not in (2, 130) and lacking:
        _waiting(found, lacking, folder, [cell for cell in chosen if cell.fingerprint in waiting])
        return 1
    return code


def _waiting(
    found: Study, lacking: Mapping[Shard, Sequence[Cell]], folder: Folder, left: Sequence[Cell]
) -> None:
    """Say which shards the cells that are left wait for, or why they failed."""
    for number, (which, cells) in enumerate(lacking.items()):
        if number == shards.SHOWN:
            print(f"cells wait for {len(lacking) - number} more shards", file=sys.stderr)
            break
        print(
            f"{len(cells)} cells wait for shard {which}: icr sweep {found.spelled} --shard {which}",
            file=sys.stderr,
        )
    for cell in left:
        record = folder.record(cell.fingerprint)
        if record is not None:
            print(f"not done: {cell.name}: {record.get('reason')}", file=sys.stderr)
