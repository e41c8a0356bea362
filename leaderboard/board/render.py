"""Tables as Markdown, TSV, LaTeX or JSON. A new format is one function `list[Table] -> str` and one line in
FORMATS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson

from ..text import escape
from ..text.names import DASH, MINUS, amount, estimate, number, shortened, size
from .tables import Line, Shown, Table

LONG = 20  # lines: longer tables are folded in Markdown
MOST = 100  # lines of a table in board.md: what is below is in board.html and board.json


def text(cell: Shown) -> str:
    """Value with its interval: `64.0 ±1.9`, or bounds where the interval is not symmetric."""
    if cell.value is None:
        return DASH
    extra = cell.extra if cell.kind == "diff" else ""
    return _text(cell.kind, float(cell.value), cell.low, cell.high, cell.unit, extra)


@lru_cache(maxsize=1 << 16)  # every format of a board prints the same cells
def _text(kind: str, value: float, low: float | None, high: float | None, unit: str, extra: str) -> str:
    if kind == "number":
        return amount(value, unit)
    if kind == "length":
        return _length(value, low, high, unit)
    signed = kind == "diff"
    if low is None or high is None:
        shown = number(value, sign=signed)
    else:
        shown = estimate(value, low, high, sign=signed)
    return f"{shown} ({extra.replace('-', MINUS)})" if extra else shown


def _length(value: float, low: float | None, high: float | None, unit: str) -> str:
    """`16k [4k, 64k+]`: in tokens, with a plus where nothing longer was measured."""
    found = [size(v) + ("+" if unit and v >= float(unit) else "") for v in (value, low or 0.0, high or 0.0)]
    return found[0] if low is None else f"{found[0]} [{found[1]}, {found[2]}]"


def leading(table: Table) -> Table:
    """The table with the column that ranks as its first: seen without scrolling where a page is narrow."""
    at = table.key
    if table.shared:  # every column ranks
        return table
    if at is None and any(line.cells and line.cells[-1].mark for line in table.lines):
        at = len(table.columns) - 1
    if not at:
        return table
    order = [at, *(j for j in range(len(table.columns)) if j != at)]
    lines = [replace(line, cells=[line.cells[j] for j in order]) for line in table.lines]
    columns = [table.columns[j] for j in order]
    return replace(table, columns=columns, lines=lines, key=None if table.key is None else 0)


def same_n(table: Table) -> list[int | None]:
    """N of each column where all its values share it."""
    found = []
    for j in range(len(table.columns)):
        ns = {line.cells[j].n for line in table.lines if line.cells[j].value is not None}
        found.append(next(iter(ns)) if len(ns) == 1 else None)
    return found


def used_heads(table: Table) -> list[int]:
    """Label columns that say something (no prompt column when no row has one)."""
    said = [i for i in range(len(table.heads)) if any(line.labels[i] for line in table.lines)]
    if table.shared:
        said = [i for i in said if len({line.labels[i] for line in table.lines}) > 1] or said[-1:]
    return said or [0]


def _cell(cell: Shown, n: int | None, notes: dict[str, int], mark: Callable[[str, str], str]) -> str:
    shown = mark(text(cell), cell.mark)
    if cell.value is not None and cell.n is not None and n is None:
        shown += f" (N={cell.n})"
    reason = cell.reason or (cell.extra if cell.kind == "score" else "")
    if reason:
        shown += f" ({notes.setdefault(reason, len(notes) + 1)})"
    return shown


def _at(table: Table, heads: Sequence[int]) -> int:
    """Which of the shown labels names the setting."""
    return next((k for k, i in enumerate(heads) if table.heads[i] == "setting"), len(heads) - 1)


def _mark_md(shown: str, mark: str) -> str:
    return f"**{shown}**" if mark == "best" else f"{shown} ≈" if mark == "tied" else shown


def table_md(table: Table, level: int = 3, most: int | None = None) -> str:
    """One table in Markdown, of its ranked and its other lines the first `most` each; empty cells carry a number
    that the notes below explain."""
    table = leading(table)
    notes: dict[str, int] = {}
    heads, ns = used_heads(table), same_n(table)
    columns = [
        escape.markdown(c) + (f" (N={n})" if n else "") for c, n in zip(table.columns, ns, strict=True)
    ]
    names = [*(table.heads[i] for i in heads), *columns]
    ruler = "|" + "---|" * len(heads) + "---:|" * len(columns)
    fold = table.folded or len(table.lines) > LONG
    title, lead = escape.markdown(shortened(table.title, 160)), escape.markdown(table.lead)
    parts = [f"{'#' * level} {title}", ""] + ([lead, ""] if lead else [])
    if fold:
        parts = [f"<details><summary><b>{title}</b>{': ' if lead else ''}{lead}</summary>", ""]
    for ranked in (True, False):
        lines = [line for line in table.lines if (line.ranked or line.reference) is ranked]
        if not lines:
            continue
        if not ranked:
            parts += [*([""] if parts[-1] else []), "Not ranked, partial or stale:", ""]
        parts += [f"| {' | '.join(names)} |", ruler]
        for line in lines[:most]:
            labels = [escape.code(shortened(line.labels[i])) if line.labels[i] else "" for i in heads]
            if line.reference:
                labels[_at(table, heads)] += " (reference)"
            cells = [_cell(c, n, notes, _mark_md) for c, n in zip(line.cells, ns, strict=True)]
            parts.append(f"| {' | '.join([*labels, *cells])} |")
        if len(lines) > len(lines[:most]):
            parts += ["", f"{len(lines) - len(lines[:most])} more lines in board.html and board.json."]
    footer = [f"({i}) {escape.markdown(reason)}" for reason, i in notes.items()]
    parts += ["", *(f"- {escape.markdown(note)}" for note in table.notes), *(f"- {note}" for note in footer)]
    return "\n".join(parts).rstrip() + ("\n\n</details>" if fold else "")


def markdown(tables: Sequence[Table]) -> str:
    """All tables."""
    return "\n\n".join(map(table_md, tables)) + "\n"


def tsv(tables: Sequence[Table]) -> str:
    """One long table for scripts: a line a cell, numbers to nine decimals."""
    head = "table\tmodel\tsetting\tprompt\tranked\tcolumn\tvalue\tlow\thigh\tn\tmark\tnote\truns"
    found = [head]
    for table in tables:
        for line in table.lines:
            for column, cell in zip(table.columns, line.cells, strict=True):
                runs = " ".join(dict.fromkeys(r for r, _ in cell.runs))
                note = "; ".join(p for p in (cell.reason, cell.extra) if p)
                labels = (*line.labels, "", "")[:3]
                values = (
                    table.name,
                    *labels,
                    int(line.ranked),
                    column,
                    cell.value,
                    cell.low,
                    cell.high,
                    cell.n,
                )
                found.append("\t".join(map(escape.tsv, (*values, cell.mark, note, runs))))
    return "\n".join(found) + "\n"


def _mark_tex(shown: str, mark: str) -> str:
    shown = escape.latex(shown)
    return rf"\textbf{{{shown}}}" if mark == "best" else rf"{shown} $\approx$" if mark == "tied" else shown


def table_latex(table: Table) -> str:
    """One booktabs table."""
    notes: dict[str, int] = {}
    heads, ns = used_heads(table), same_n(table)
    names = [escape.latex(table.heads[i]) for i in heads]
    names += [escape.latex(c) + (f" ({n})" if n else "") for c, n in zip(table.columns, ns, strict=True)]
    body = []
    for line in table.lines:
        labels = [escape.latex(shortened(line.labels[i])) for i in heads]
        cells = [_cell(c, n, notes, _mark_tex) for c, n in zip(line.cells, ns, strict=True)]
        if line.reference:
            labels[_at(table, heads)] += " (reference)"
        body.append(("" if line.ranked else r"\itshape ") + " & ".join([*labels, *cells]) + r" \\")
    footer = " ".join(f"({i}) {escape.latex(reason)}." for reason, i in notes.items())
    spec = "l" * len(heads) + "r" * len(table.columns)
    return "\n".join(
        [
            r"\begin{table}\centering\small",
            rf"\begin{{tabular}}{{{spec}}}\toprule",
            " & ".join(names) + r" \\\midrule",
            *body,
            r"\bottomrule\end{tabular}",
            *([rf"\par\footnotesize {' '.join(map(_ended, table.notes))}"] if table.notes else []),
            rf"\caption{{{escape.latex(table.title)}. Number of items in brackets. {footer}}}",
            r"\end{table}",
        ]
    )


def _ended(note: str) -> str:
    return escape.latex(note if note.endswith(".") else f"{note}.")


def latex(tables: Sequence[Table]) -> str:
    """All tables."""
    return "\n\n".join(map(table_latex, tables)) + "\n"


def data(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Tables as plain data; `text` is each cell as Markdown shows it."""
    return [vars(t) | {"lines": [_line(line) for line in t.lines]} for t in tables]


def _line(line: Line) -> dict[str, Any]:
    return vars(line) | {"cells": [vars(c) | {"text": text(c)} for c in line.cells]}


def json(tables: Sequence[Table]) -> str:
    """All tables, schema 1."""
    body = {"schema": 1, "tables": data(tables)}
    return orjson.dumps(body, option=orjson.OPT_INDENT_2).decode() + "\n"


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "md": markdown,
    "json": json,
    "tsv": tsv,
    "latex": latex,
}
