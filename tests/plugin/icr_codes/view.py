"""A board view: how many cells of each row are complete."""

from collections.abc import Sequence
from typing import Any

import icr_tasks as icr


@icr.view("complete-cells")
def cells(rows: Sequence[Any], options: Any) -> list[icr.Table]:
    """One table: row, complete cells, all cells."""
    lines = [
        icr.Line(
            (row.name, row.setting["text"]),
            [
                icr.Shown(float(sum(c.status == "complete" for c in row.cells.values()))),
                icr.Shown(float(len(row.cells))),
            ],
        )
        for row in rows
    ]
    return [icr.Table("complete-cells", "Complete cells", ("model", "setting"), ("complete", "all"), lines)]
