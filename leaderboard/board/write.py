"""Writes a board: board.md, board.json, board.html, the pictures and, where asked for, a file of all items; every file is whole or
absent."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from icr_tasks.storage import making, write_atomic, writing

from .. import plots
from ..ledgers.todo import command
from ..text import escape, suite
from ..text.names import shortened
from . import render
from .html import page as _page
from .items import Items
from .pictures import GROUPS, Picture, pictures
from .rows import columns_of, open_tasks, suite_of
from .tables import SERIES, Table
from .views.published import findings, tables

if TYPE_CHECKING:
    from .build import Board

__all__ = ["Items", "page", "write"]
INDENTED = 100  # rows: board.json of more stands in one line
OPEN = 20  # rows to complete that board.md names with their command
_LEGEND = (
    "Scores x 100 with 95 % intervals, clustered by question (book, filing): items that share one are not "
    "independent. "
    "N counts items. A dash has no value, its note says why; an average with a dash in it is a dash. "
    "**Bold** is the "
    "best of the column that ranks, ≈ is within noise of it (paired on the same items, p ≥ 0.05 over all pairs of "
    "ranked rows)."
)


def write(
    board: Board,
    out: Path,
    items: Items,
    *,
    published: bool = False,
    links: Sequence[tuple[str, str]] = (),
    otherwise: str = "choose another folder with -o",
) -> list[Path]:
    """Write all files below `out`; returns their paths. `links` are (text, address) for the page's head. Raises
    IcrError, which says to do `otherwise`, where that is impossible."""
    drawn = charts(board)
    extra = tables() if published else []
    found: dict[str, str] = {}
    for p in drawn:
        if p.static:
            found |= {f"{p.name}.svg": p.chart.svg(), f"{p.name}.dark.svg": p.chart.svg(dark=True)}
    found["board.md"] = markdown(board, drawn, extra, published)
    found["board.json"] = json(board, extra)
    found["board.html"] = _page(board, items, [*board.tables, *extra], drawn, todo(board), links)
    with writing(f"the board to {out}", otherwise), making(out):
        written = items.close()
        for name, text in found.items():
            write_atomic(out / name, text.encode())
            written.append(out / name)
    return written


def page(board: Board, items: Items | None, shown: Sequence[Table]) -> str:
    """The page alone, for standard output."""
    return _page(board, items, shown, charts(board), todo(board))


def charts(board: Board) -> list[Picture]:
    """The pictures of a board; none where the extra that draws them is not installed."""
    return pictures(board) if plots.available() else []


def todo(board: Board) -> list[tuple[str, list[str], str]]:
    """(row, what is open, command) of rows with partial, stale, failed or missing cells."""
    columns = columns_of(board.rows)
    names = {c: row.cells[c].task for row in board.rows for c in row.cells}
    found = []
    for row in board.rows:
        by_run: dict[str, tuple[list[str], list[str], dict[str, Any]]] = {}
        for task, (matter, head) in open_tasks(row, columns, names).items():
            entry = by_run.setdefault(head["fingerprint"], ([], [], head))
            entry[0].append(task)
            entry[1].append(f"{task} {matter}")
        found += [(row.label, matters, command(head, tasks)) for tasks, matters, head in by_run.values()]
    return sorted(found)


def markdown(board: Board, drawn: Sequence[Picture], extra: Sequence[Table], published: bool) -> str:
    """board.md: the first picture, the tables, each with its notes, the other pictures folded; then what is
    missing and how to get it."""
    parts = [
        "# Board",
        "",
        f"{board.n_runs} runs, {len(board.rows)} rows, {board.n_items} items. {_LEGEND}",
        "",
    ]
    static = [p for p in drawn if p.static]
    parts += [f"{plots.NEEDS[0].upper()}{plots.NEEDS[1:]}.", ""] * (not plots.available())
    parts += [part for p in static[:1] for part in (_picture(p), "")]
    parts += [part for text in _tables(board.tables) for part in (text, "")]
    if static[1:]:
        parts += ["## Pictures", ""]
        for group in dict.fromkeys(p.group for p in static[1:]):
            own = [p for p in static[1:] if p.group == group]
            parts += [f"<details><summary>{GROUPS[group]} ({len(own)})</summary>", ""]
            parts += [part for p in own for part in (_picture(p), "")]
            parts += ["</details>", ""]
    if more := len(drawn) - len(static):
        parts += [f"board.html has {more} more, of models further down.", ""]
    if board.left_out:
        parts += ["## Not shown", ""]
        parts += [
            f"- {escape.code(name)}: {escape.markdown(why)}." for name, why in board.left_out.items()
        ] + [""]
    open_rows = todo(board)
    if open_rows:
        parts += ["## To complete", "", "Then `icr collect out -o results` and `icr board` again.", ""]
        for label, matters, call in open_rows[:OPEN]:
            parts += [
                f"{escape.code(shortened(label, 160))}: {escape.markdown('; '.join(matters))}",
                "",
                escape.fence(call),
                "",
            ]
        if open_rows[OPEN:]:
            parts += [f"{len(open_rows) - OPEN} more in board.json.", ""]
    if board.bad:
        parts += ["## Not readable", "", *(f"- {escape.markdown(message)}" for message in board.bad), ""]
    if published:
        parts += [
            "## Published",
            "",
            "As printed in the paper (arXiv 2601.18527), and at the end what others report of newer benchmarks; not "
            "measured here, not ranked.",
            "",
        ]
        parts += [part for table in extra for part in (render.table_md(table), "")]
        parts += [findings(), ""]
    return "\n".join(parts).rstrip() + "\n"


def _tables(tables: Sequence[Table]) -> list[str]:
    """Tables in Markdown, of a long series the first ones: a file of thousands of lines is read by nobody."""
    found = []
    for series, group in groupby(tables, lambda table: table.series):
        own = list(group)
        shown = own[:SERIES] if series else own
        found += [render.table_md(table, 2, render.MOST) for table in shown]
        if more := len(own) - len(shown):
            found.append(f"{more} more such tables, one a {series}, in board.html and board.json.")
    return found


def _picture(picture: Picture) -> str:
    """Both themes of a picture, for Markdown as GitHub shows it."""
    name, about = picture.name, html.escape(escape.visible(picture.chart.title))
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{name}.dark.svg">'
        f'<img src="{name}.svg" alt="{about}"></picture>'
    )


def json(board: Board, extra: Sequence[Table]) -> str:
    """board.json, schema 1: tables, rows with every cell, runs, what is open."""
    rows = [
        {
            "model": row.model,
            "checkpoint": row.checkpoint,
            "setting": row.setting,
            "prompt": row.prompt,
            "variant": row.variant,
            "runs": row.runs,
            "cells": [_cell(c, cell) for c, cell in row.cells.items()],
        }
        for row in board.rows
    ]
    averaged = list(dict.fromkeys(c[0] for c in suite_of(columns_of(board.rows))))
    open_rows = [{"row": label, "open": matters, "command": call} for label, matters, call in todo(board)]
    body = {
        "schema": 1,
        "n_runs": board.n_runs,
        "n_items": board.n_items,
        "suite": {"version": suite.version(averaged), "benchmarks": averaged},
        "rows": rows,
        "tables": render.data(board.tables),
        "published": render.data(extra),
        "open": open_rows,
        "unreadable": board.bad,
        "left_out": board.left_out,
    }
    # indented where a person may read it: of many runs blanks are most of the file
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 if len(rows) <= INDENTED else None).decode() + "\n"


def _cell(column: tuple[str, str, str], cell: Any) -> dict[str, Any]:
    e = cell.effect
    found = {"benchmark": column[0], "dataset": column[1], "length": column[2] or None, "task": cell.task}
    found |= {"run": cell.run, "status": cell.status, "reason": cell.reason, "n_expected": cell.n_expected}
    if e is None:
        return found
    low, high = e.ci()
    # inf (one cluster, no interval) becomes null
    return found | {
        "mean": e.mean,
        "low": low,
        "high": high,
        "se": e.se,
        "df": e.df,
        "n": e.n,
        "clusters": e.clusters,
    }
