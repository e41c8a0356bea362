"""From the cells of a study folder to its ledgers, safe while other processes run the same study."""

from __future__ import annotations

import re
import shutil
from typing import Any

from ..leaderboard.collect import collect
from ..leaderboard.summary import table
from .records import Folder

_BUILDING = re.compile(r"\.[0-9a-f]{12}\.\d+\Z")


def current(folder: Folder) -> list[dict[str, Any]]:
    """Records with whole output; where a cell was run under changed inputs, only the newest."""
    newest: dict[tuple[str, ...], tuple[float, dict[str, Any]]] = {}
    for record in folder.records():
        output = folder.lm_eval / record["fingerprint"]
        if record["status"] == "error" or not folder.whole({**record, "status": "done"}):
            continue
        made, where = output.stat().st_mtime, tuple(record["where"])
        if where not in newest or newest[where][0] <= made:
            newest[where] = made, record
    return [record for _, record in newest.values()]


def write(folder: Folder, *, show: bool = False) -> str:
    """Write the ledgers of all finished cells; with `show`, returns their table.

    The table reads the ledgers, so it is made before another process may replace them.
    """
    with folder.lock("results", wait=True):
        _sweep_up(folder)
        outputs = [folder.lm_eval / record["fingerprint"] for record in current(folder)]
        runs = collect(outputs, folder.results) if outputs else []
        return table(runs) if show else ""


def _sweep_up(folder: Folder) -> None:
    """Remove what killed processes left half-built: nobody else writes ledgers while we hold the lock."""
    for path in folder.results.glob("*/*/.*"):
        if _BUILDING.match(path.name):
            shutil.rmtree(path, ignore_errors=True)
    for path in (folder.out / "tmp").glob("*.*"):
        with folder.lock(path.name.partition(".")[0], wait=False) as free:
            if free:
                shutil.rmtree(path, ignore_errors=True)
