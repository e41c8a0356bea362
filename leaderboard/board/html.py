"""board.html: one file without network; the tables are in it as HTML, the script only sorts, filters and
opens items.

`page/board.html` is a Jinja template with autoescape: names and answers are text there, whatever is in them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text import escape
from ..text.names import count
from ..text.printed import printed, settled
from . import render
from .tables import Line, Shown, Table

if TYPE_CHECKING:
    from .build import Board
    from .items import Items

_FOLDER = Path(__file__).with_name("page")


def page(
    board: Board,
    items: Items | None,
    tables: Sequence[Table],
    pictures: dict[str, tuple[str, str]],
    todo: Sequence[tuple[str, list[str], str]],
) -> str:
    """The page. Its script is allowed by hash, so that no other script could run."""
    from markupsafe import Markup

    script = (_FOLDER / "board.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    summary = f"{board.n_runs} runs, {len(board.rows)} rows, {count(board.n_items)} items. "
    summary += "Scores x 100 with 95 % intervals, clustered; ≈ is within noise of the best. Click a cell for its items."
    # Markup: our own files, the charts (made by us, their texts escaped) and JSON that cannot end its element
    return _template().render(
        hash=Markup(f"sha256-{digest}"),
        css=Markup((_FOLDER / "board.css").read_text(encoding="utf-8")),
        js=Markup(script),
        summary=summary,
        tables=[_table(t) for t in tables],
        plots=[Markup(svg.strip()) for _, svg in pictures.values()],
        todo=todo,
        bad=board.bad,
        data=Markup(escape.script_json({"cells": items.sample() if items else {}})),
    )


@lru_cache(maxsize=1)
def _template() -> Any:
    import jinja2

    def shown(value: Any) -> Any:
        return value if hasattr(value, "__html__") else escape.visible(value)

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return made.get_template("board.html")


def _table(table: Table) -> dict[str, Any]:
    heads, ns = render.used_heads(table), render.same_n(table)
    columns = [
        {"name": name, "n": n, "key": j == table.key}
        for j, (name, n) in enumerate(zip(table.columns, ns, strict=True))
    ]
    grey = (
        ["Grey rows are not ranked: partial, stale, or reference lines."]
        if any(not x.ranked for x in table.lines)
        else []
    )
    return {
        "name": table.name,
        "title": table.title,
        "labels": [table.heads[i] for i in heads],
        "columns": columns,
        "lines": [_line(line, heads, ns) for line in table.lines],
        "notes": [*table.notes, *grey],
    }


def _line(line: Line, heads: Sequence[int], ns: Sequence[int | None]) -> dict[str, Any]:
    return {
        "labels": [line.labels[i] for i in heads],
        "find": " ".join(line.labels).lower(),
        "cells": [_cell(c, n) for c, n in zip(line.cells, ns, strict=True)],
        "ranked": line.ranked,
    }


def _cell(cell: Shown, n: int | None) -> dict[str, Any]:
    about = [
        cell.reason,
        cell.extra if cell.kind == "score" else "",
        f"N={cell.n}" if cell.n is not None else "",
    ]
    if cell.low is not None and cell.high is not None:
        about.insert(0, f"[{cell.low:.2f}, {cell.high:.2f}]")
    runs = "\n".join(" ".join(r) for r in cell.runs)
    return {
        "text": render.text(cell),
        "tied": cell.mark == "tied",
        "n": cell.n if cell.value is not None and n is None else None,
        "about": "; ".join(a for a in about if a),
        "runs": runs,
        "classes": " ".join(c for c in ("best" if cell.mark == "best" else "", "go" if runs else "") if c),
        "by": _sorted_by(cell),
    }


def _sorted_by(cell: Shown) -> str:
    """What a click on the column's head sorts by: the printed value, so that the name decides between equal
    ones."""
    if cell.value is None:
        return ""
    return f"{settled(cell.value):.6g}" if cell.kind == "number" else f"{printed(cell.value):.1f}"
