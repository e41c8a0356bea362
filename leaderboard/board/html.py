"""board.html: one file without network; the tables are in it as HTML, the script sorts, filters, opens items,
compares two runs and draws the charts.

`page/board.html` is a Jinja template with autoescape: names and answers are text there, whatever is in them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from .. import plots
from ..text import escape
from ..text.names import count
from ..text.printed import printed, settled
from . import render
from .pictures import GROUPS, Picture
from .tables import Line, Shown, Table, shown

if TYPE_CHECKING:
    from ..ledgers.load import Run
    from .build import Board
    from .cells import Cell
    from .items import Items

_FOLDER = Path(__file__).with_name("page")


def page(
    board: Board,
    items: Items | None,
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    todo: Sequence[tuple[str, list[str], str]],
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """The page. Its scripts are allowed by hash, so that no other script could run; charts are JSON that Vega
    reads without evaluating code (its interpreter of expressions)."""
    from markupsafe import Markup

    scripts = [(_FOLDER / "board.js").read_text(encoding="utf-8")]
    if pictures:
        scripts.insert(0, plots.bundle())
    summary = f"{board.n_runs} runs, {len(board.rows)} rows, {count(board.n_items)} items. "
    summary += "Scores x 100 with 95 % intervals, clustered; ≈ is within noise of the best. Click a cell for its items."
    cells = items.sample() if items else {}
    keys = {key: n for n, key in enumerate(cells)}
    made = [_table(render.leading(t), keys) for t in tables]
    data = {
        "cells": cells,
        "keys": list(keys),
        "runs": {
            c["run"]: " ".join(p for p in (c["model"], c["setting"], c["prompt"]) if p)
            for c in cells.values()
        },
        "file": items.file if items else "",
        "charts": [{"title": p.chart.title, "about": p.chart.words, "spec": p.chart.spec} for p in pictures],
        "themes": [plots.config(False), plots.config(True)] if pictures else [],
    }
    # Markup: our own files and JSON that cannot end its element
    return _template("board.html").render(
        hashes=Markup(" ".join(f"'sha256-{_digest(script)}'" for script in scripts)),
        css=Markup((_FOLDER / "board.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        summary=summary,
        links=links,
        first=made[:1],
        tables=made[1:],
        groups=_groups(pictures),
        needs="" if plots.available() else plots.NEEDS,
        todo=todo,
        bad=board.bad,
        data=Markup(escape.script_json(data)),
    )


def run_page(
    run: Run | None, cells: dict[str, Cell | None], entries: Sequence[tuple[str, str, str, str, str]] = ()
) -> str:
    """One run of a published board: what made it and what it scored; without a run the list of all pages as
    (file, model, setting, prompt, status)."""
    from markupsafe import Markup

    head = run.head if run else {}
    named = (
        "fingerprint",
        "status",
        "model",
        "setting",
        "prompt",
        "engine",
        "gen_kwargs",
        "truncation",
        "versions",
        "git",
    )
    facts = {name: escape.visible(orjson.dumps(head[name]).decode()) for name in named if head.get(name)}
    tasks = []
    for name, sheet in (head.get("tasks") or {}).items():
        cell = cells.get(name)
        value = render.text(shown(cell, 0.95)) if cell else "–"
        about = f"{sheet.get('n_scored', '?')} of {sheet.get('n_expected') or '?'}"
        note = "; ".join([*([cell.reason] if cell and cell.reason else []), *(cell.marks if cell else ())])
        tasks.append((name, sheet.get("metric") or "", value, about, note))
    return _template("run.html").render(
        css=Markup((_FOLDER / "board.css").read_text(encoding="utf-8")),
        title=run.label if run else "Runs",
        facts=facts,
        tasks=tasks,
        entries=entries,
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _groups(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """One figure a group: where it has several pictures the reader chooses."""
    found: dict[str, dict[str, Any]] = {}
    for n, p in enumerate(pictures):
        group = found.setdefault(p.group, {"name": p.group, "title": GROUPS[p.group], "charts": []})
        group["charts"].append({"n": n, "title": p.chart.title})
    return list(found.values())


@lru_cache(maxsize=2)
def _template(name: str) -> Any:
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
    return made.get_template(name)


def _table(table: Table, keys: dict[str, int]) -> dict[str, Any]:
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
        "lead": table.lead,
        "folded": table.folded,
        "labels": [table.heads[i] for i in heads],
        "columns": columns,
        "lines": [_line(line, heads, ns, keys) for line in table.lines],
        "notes": [*table.notes, *grey],
    }


def _line(line: Line, heads: Sequence[int], ns: Sequence[int | None], keys: dict[str, int]) -> dict[str, Any]:
    return {
        "labels": [line.labels[i] for i in heads],
        "find": " ".join(line.labels).lower(),
        "cells": [_cell(c, n, keys) for c, n in zip(line.cells, ns, strict=True)],
        "ranked": line.ranked,
    }


def _cell(cell: Shown, n: int | None, keys: dict[str, int]) -> dict[str, Any]:
    about = [
        cell.reason,
        cell.extra if cell.kind == "score" else "",
        f"N={cell.n}" if cell.n is not None else "",
    ]
    if cell.low is not None and cell.high is not None:
        about.insert(0, f"[{cell.low:.2f}, {cell.high:.2f}]")
    runs = " ".join(str(keys[key]) for r in cell.runs if (key := " ".join(r)) in keys)
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
