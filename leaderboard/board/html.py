"""board.html: one file without network; the tables are in it as HTML, the script sorts, filters, opens items,
compares two runs and draws the charts.

`page/board.html` is a Jinja template with autoescape: names and answers are text there, whatever is in them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from .. import plots
from ..text import escape
from ..text.names import count
from ..text.printed import printed, settled
from . import render
from .pictures import GROUPS, Picture
from .tables import SERIES, Line, Shown, Table, shown

if TYPE_CHECKING:
    from ..ledgers.load import Run
    from .build import Board
    from .cells import Cell
    from .items import Items

_FOLDER = Path(__file__).with_name("page")
OPEN = 100  # rows to complete that the page names


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
        **_items(list(cells.values())),
        "file": items.file if items else "",
        **_charts(pictures),
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
        tables=_in_series(made[1:]),
        groups=_groups(pictures),
        needs="" if plots.available() else plots.NEEDS,
        todo=todo[:OPEN],
        more=max(0, len(todo) - OPEN),
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


def _items(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Cells and what they share: each name stands in the page once and is meant by its number. A cell is
    [run, task, items in all, kind, rows] (cells of one kind may be compared), a row [item, occurrence, depth, score, prompt tokens, cut, error, texts ...]
    without the empty ones at its end."""
    runs: dict[tuple[str, str], int] = {}
    tasks: dict[tuple[str, str], int] = {}
    names: dict[str, int] = {}
    kinds: dict[Any, int] = {}
    made = []
    for c in cells:
        who = " ".join(p for p in (c["model"], c["setting"], c["prompt"]) if p)
        rows = [[names.setdefault(item, len(names)), *_short(rest)] for item, *rest in c["rows"]]
        made.append(
            [
                runs.setdefault((c["run"], who), len(runs)),
                tasks.setdefault((c["task"], c["length"]), len(tasks)),
                c["n"],
                kinds.setdefault(c["kind"], len(kinds)),
                rows,
            ]
        )
    return {"cells": made, "runs": list(runs), "tasks": list(tasks), "items": list(names)}


def _charts(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Charts with their data and titles; what else is in their specs stands once for all that share it."""
    frames: dict[bytes, tuple[int, dict[str, Any]]] = {}
    made = []
    for p in pictures:
        frame = {key: value for key, value in p.chart.spec.items() if key not in ("title", "datasets")}
        own = {key: value for key, value in p.chart.spec.items() if key not in frame}
        n, _ = frames.setdefault(orjson.dumps(frame), (len(frames), frame))
        made.append({"title": p.chart.title, "about": p.chart.words, "frame": n, "spec": own})
    return {"charts": made, "frames": [frame for _, frame in frames.values()]}


def _short(values: Sequence[Any]) -> list[Any]:
    """Whole numbers without a point, no empty values at the end."""
    found = [int(v) if isinstance(v, float) and v == int(v) else v for v in values]
    while found and (found[-1] is None or found[-1] is False or found[-1] == ""):
        found.pop()
    return found


def _in_series(tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tables with the first and the last one of a long series marked: all of it folds behind one line, and notes
    that all its tables share stand in the first."""
    for series, group in groupby(tables, lambda table: table["series"]):
        own = list(group)
        if series and len(own) > SERIES:
            own[0]["opens"] = f"{len(own)} tables, one a {series}"
            own[-1]["closes"] = True
            said = own[0]["notes"]
            for table in own[1:]:
                table["notes"] = [note for note in table["notes"] if note not in said]
    return list(tables)


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
        "series": table.series,
        "opens": "",
        "closes": False,
        "labels": [table.heads[i] for i in heads],
        "columns": columns,
        "lines": [_line(line, heads, ns, keys) for line in table.lines],
        "notes": [*table.notes, *grey],
    }


def _line(line: Line, heads: Sequence[int], ns: Sequence[int | None], keys: dict[str, int]) -> dict[str, Any]:
    labels, find = [line.labels[i] for i in heads], " ".join(line.labels).lower()
    return {
        "labels": labels,
        "find": "" if find.split() == " ".join(labels).lower().split() else find,  # else the script finds it
        "cells": [_cell(c, n, keys) for c, n in zip(line.cells, ns, strict=True)],
        "ranked": line.ranked,
    }


def _cell(cell: Shown, n: int | None, keys: dict[str, int]) -> dict[str, Any]:
    about = [
        cell.reason,
        cell.extra if cell.kind == "score" else "",
        f"N={cell.n}" if cell.n is not None and n is None else "",
    ]
    if cell.low is not None and cell.high is not None:
        about.insert(0, f"[{cell.low:.2f}, {cell.high:.2f}]")
    return {
        "text": render.text(cell),
        "tied": cell.mark == "tied",
        "n": cell.n if cell.value is not None and n is None else None,
        "about": "; ".join(a for a in about if a),
        "runs": _ranges(keys[key] for r in cell.runs if (key := " ".join(r)) in keys),
        "best": cell.mark == "best",
        "by": _sorted_by(cell),
    }


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers in order, those that follow each other as a range: `3-7 12`."""
    found: list[list[int]] = []
    for n in sorted(set(numbers)):
        if found and n == found[-1][1] + 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return " ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in found)


def _sorted_by(cell: Shown) -> str:
    """What a click on the column's head sorts by, where it is not the number that the text begins with: a printed
    value, so that the name decides between equal ones."""
    if cell.value is None or cell.kind in ("score", "diff"):
        return ""
    by = f"{settled(cell.value):.6g}" if cell.kind == "number" else f"{printed(cell.value):.1f}"
    return "" if by == render.text(cell) else by
