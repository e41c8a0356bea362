"""board.html: one file without network; the tables are in it as HTML, the script only sorts, filters and
opens items."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..text import escape
from ..text.names import count
from ..text.printed import printed, settled
from . import render
from .tables import Line, Shown, Table

_FOLDER = Path(__file__).with_name("page")


def page(
    board: Any,
    items: Any,
    tables: Sequence[Table],
    pictures: dict[str, tuple[str, str]],
    todo: Sequence[tuple[str, list[str], str]],
) -> str:
    """The page. Its script is allowed by hash, so that no other script could run."""
    script = (_FOLDER / "board.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    summary = f"{board.n_runs} runs, {len(board.rows)} rows, {count(board.n_items)} items. "
    summary += "Scores x 100 with 95 % intervals, clustered; ≈ is within noise of the best. Click a cell for its items."
    parts = {
        "hash": f"sha256-{digest}",
        "css": (_FOLDER / "board.css").read_text(encoding="utf-8"),
        "summary": escape.html(summary),
        "nav": "".join(f'<a href="#{escape.html(t.name)}">{escape.html(t.title)}</a>' for t in tables),
        "tables": "\n".join(_table(t) for t in tables),
        "plots": _plots(pictures),
        "todo": _todo(todo, board.bad),
        "data": escape.script_json({"cells": items.sample() if items else {}}),
        "js": script,
    }
    pieces = (_FOLDER / "board.html").read_text(encoding="utf-8").split("{{")
    # Split first, so that braces in the data are never taken for a place to fill.
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _table(table: Table) -> str:
    heads, ns = render.used_heads(table), render.same_n(table)
    names = [
        f'<th class="l" scope="col"><button type="button">{escape.html(table.heads[i])}</button></th>'
        for i in heads
    ]
    for j, (column, n) in enumerate(zip(table.columns, ns, strict=True)):
        sort = ' aria-sort="descending"' if j == table.key else ""
        small = f" <small>N={n}</small>" if n else ""
        names.append(
            f'<th scope="col"{sort}><button type="button">{escape.html(column)}</button>{small}</th>'
        )
    body = "\n".join(_line(line, heads, ns) for line in table.lines)
    notes = "".join(f"<li>{escape.html(n)}</li>" for n in table.notes)
    if any(not line.ranked for line in table.lines):
        notes += "<li>Grey rows are partial or stale and not ranked.</li>"
    return (
        f'<section id="{escape.html(table.name)}"><h2>{escape.html(table.title)}</h2><div class="scroll"><table class="view">'
        f"<thead><tr>{''.join(names)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + "</section>"
    )


def _line(line: Line, heads: Sequence[int], ns: Sequence[int | None]) -> str:
    labels = "".join(
        f'<td class="l" title="{escape.html(line.labels[i])}" data-v="{escape.html(line.labels[i])}">{escape.html(line.labels[i])}</td>'
        for i in heads
    )
    cells = "".join(_cell(c, n) for c, n in zip(line.cells, ns, strict=True))
    out = "" if line.ranked else ' class="out"'
    return f'<tr{out} data-label="{escape.html(" ".join(line.labels).lower())}">{labels}{cells}</tr>'


def _cell(cell: Shown, n: int | None) -> str:
    shown = escape.html(render.text(cell)) + (" ≈" if cell.mark == "tied" else "")
    if cell.value is not None and cell.n is not None and n is None:
        shown += f" <small>N={cell.n}</small>"
    about = [
        cell.reason,
        cell.extra if cell.kind == "score" else "",
        f"N={cell.n}" if cell.n is not None else "",
    ]
    if cell.low is not None and cell.high is not None:
        about.insert(0, f"[{cell.low:.2f}, {cell.high:.2f}]")
    runs = "\n".join(" ".join(r) for r in cell.runs)
    classes = " ".join(c for c in ("best" if cell.mark == "best" else "", "go" if runs else "") if c)
    extra = f' data-v="{_sorted_by(cell)}"'
    extra += f' class="{classes}"' if classes else ""
    extra += f' data-runs="{escape.html(runs)}" tabindex="0"' if runs else ""
    return f'<td{extra} title="{escape.html("; ".join(a for a in about if a))}">{shown}</td>'


def _sorted_by(cell: Shown) -> str:
    """What a click on the column's head sorts by: the printed value, so that the name decides between equal
    ones."""
    if cell.value is None:
        return ""
    return f"{settled(cell.value):.6g}" if cell.kind == "number" else f"{printed(cell.value):.1f}"


def _plots(pictures: dict[str, tuple[str, str]]) -> str:
    if not pictures:
        return ""
    figures = "\n".join(f"<figure>{svg.strip()}</figure>" for _, svg in pictures.values())
    return f'<section id="plots"><h2>Plots</h2><div class="plots">{figures}</div></section>'


def _todo(todo: Sequence[tuple[str, list[str], str]], bad: Sequence[str]) -> str:
    found = "".join(
        f"<p><strong>{escape.html(label)}</strong>: {escape.html('; '.join(matters))}</p><pre>{escape.html(call)}</pre>"
        for label, matters, call in todo
    )
    found = f'<section id="open"><h2>To complete</h2>{found}</section>' if found else ""
    lost = "".join(f"<li>{escape.html(message)}</li>" for message in bad)
    return found + (f"<section><h2>Not readable</h2><ul>{lost}</ul></section>" if lost else "")
