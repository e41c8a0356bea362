"""A board view: how many cells of each row are complete."""

import icr_tasks as icr


@icr.view("complete-cells")
def cells(board: icr.Board) -> list[icr.Table]:
    """One table: model and setting, complete cells, all cells."""
    lines = []
    for row in board.rows:
        complete = sum(cell.status == "complete" for cell in row.cells.values())
        numbers = [icr.Shown("number", value=n) for n in (complete, len(row.cells))]
        lines.append(icr.Line((row.name, row.setting["text"]), numbers))
    return [
        icr.Table("complete-cells", "Complete cells", ["complete", "all"], lines, heads=("model", "setting"))
    ]
