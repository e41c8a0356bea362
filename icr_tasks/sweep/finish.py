"""Bring the chosen cells of a study to their end, whatever ran before. `icr sweep` and training call it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import costs, records
from .cells import Cell
from .executors import EXECUTORS, parts
from .records import Folder
from .runner import run_cells
from .study import Study


def run(found: Study, chosen: Sequence[Cell], executor: str = "local", jobs: int = 1) -> int:
    """Answer what is not answered yet, `jobs` engines at once, and write the records and the summary.

    0 when every chosen cell is done, 1 when one is not (the others are kept), 2 for bad input, 130 when
    interrupted.
    """
    folder = Folder(found.out)
    todo = [c for c in chosen if not ((record := folder.record(c.fingerprint)) and folder.whole(record))]
    print(f"{len(chosen)} cells, {len(chosen) - len(todo)} done before", file=sys.stderr)
    code = 0
    if todo:
        split = parts(list(todo), jobs)
        if executor == "local" and len(split) == 1:
            code = run_cells(found, list(todo))
        else:
            # One process an engine: an engine's memory is surely free again only when its process has ended.
            code = int(bool(EXECUTORS[executor](found, split, jobs)))
    if code in (2, 130):
        return code
    print(records.write(folder, show=True))
    for line in costs.said(chosen, folder.answers):
        print(line)
    left = [c for c in chosen if not ((record := folder.record(c.fingerprint)) and folder.whole(record))]
    for cell in left:
        record = folder.record(cell.fingerprint) or {"reason": "not run"}
        print(f"not done: {cell.name}: {record.get('reason')}", file=sys.stderr)
    if left:
        print(
            f"{len(left)} of {len(chosen)} cells are not done; `icr status {found.path}` shows why; go on with: "
            f"icr sweep {found.path}",
            file=sys.stderr,
        )
    return 1 if left else code
