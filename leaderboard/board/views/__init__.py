"""The board's tables: one file a view, which registers a function `view(board) -> list[Table]`.

    @icr.view("cells")
    def cells(board: icr.Board) -> list[icr.Table]:
        lines = [icr.Line((row.name, row.setting["text"]), [icr.Shown("number", len(row.cells))]) for row in
        board.rows] return [icr.Table("cells", "Cells", ["n"], lines, heads=("model", "setting"))]

`board.rows` are the rows (model x checkpoint x setting x prompt, with a cell a column); `board.options` is
what the user chose. `Table`, `Line` and `Shown` are explained where they are defined (`board.tables`). Views
are shown by `order`, those without one last; `--view NAME` shows one alone.
"""

from __future__ import annotations

from icr_tasks.registry import VIEWS, Entry


def in_order() -> list[Entry]:
    """All views, ours and those of plugins, as they stand on the board."""
    return sorted(VIEWS.entries(), key=lambda entry: (entry.facts["order"], entry.name))
