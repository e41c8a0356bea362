"""The paper's tables in the shape of ours, for reading beside them; nothing of it is ranked or averaged with
ours."""

from __future__ import annotations

from typing import Any

from ...text import escape
from .. import published, reported
from ..tables import Line, Shown, Table


def tables() -> list[Table]:
    """Tables 1, 2, 3, 4, 10, 11 and 12 as printed, where a cell that arithmetic contradicts says so; then what
    others report of newer benchmarks."""
    wrong: dict[tuple[str, str, str], str] = {}
    for f in published.check():
        for name in f.table.split("/"):
            wrong.setdefault((name, f.row, f.column), f.text)
    found = []
    for name, table in published.data()["tables"].items():
        columns = list(table["columns"])
        averaged = any(row[3] is not None for row in table["rows"])
        lines = []
        for row in table["rows"]:
            label = f"{row[0]} {row[1]}" + (f" {row[4]}" if len(row) > 4 else "")
            values = [*zip(columns, row[2], strict=True), *([("avg", row[3])] if averaged else [])]
            kind = "diff" if name == "3" else "score"
            cells = [Shown(kind, v, reason=_note(wrong, name, row, label, c)) for c, v in values]
            lines.append(Line((row[0], row[1], row[4] if len(row) > 4 else ""), cells))
        heads = ("model", "setting", "dataset") if name == "11" else ("model", "setting", "prompt")
        heading = f"Table {name}: {table['title']}"
        found.append(
            Table(f"published-{name}", heading, columns + (["avg"] if averaged else []), lines, heads=heads)
        )
    return [*found, others()]


def others() -> Table:
    """What others report of the newer benchmarks, with source and month."""
    lines = [
        Line(
            (r["model"], _task(r), f"{r['source']}, {r['date']}"),
            [Shown("score", r["value"], reason=r["note"])],
        )
        for r in reported.rows()
    ]
    heading = "Reported by others, full context where no setting is named"
    return Table("published-others", heading, ["score"], lines, heads=("model", "task", "source"))


def _task(row: dict[str, Any]) -> str:
    parts = [row["benchmark"], row["dataset"] if row["dataset"] != "all" else "", row["length"] or ""]
    how = [row[name] for name in ("setting", "prompt") if name in row]
    return ", ".join(["_".join(filter(None, parts)), *how])


def _note(wrong: dict[tuple[str, str, str], str], name: str, row: list, label: str, column: str) -> str:  # type: ignore[type-arg]
    return wrong.get((name, label, column)) or wrong.get((name, f"{row[0]} {row[1]}", column), "")


def findings() -> str:
    """All contradictions as a Markdown table."""
    lines = ["### What does not add up in them", "", "| table | row | column | what |", "|---|---|---|---|"]
    for f in published.check():
        row = [escape.markdown(t) for t in (f.table, f.row, f.column, f.text)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)
