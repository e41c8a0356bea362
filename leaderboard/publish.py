"""A static site of a results tree: the board, a page a run, the data, and what changed since the last time.

Everything below the folder that an earlier call wrote and this one does not is removed; other files there
(CNAME, a README) stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from icr_tasks.errors import IcrError
from icr_tasks.storage import write_atomic, writing

from .board import render
from .board.build import Board, build
from .board.html import run_page
from .board.items import Items
from .board.tables import Options
from .board.write import write
from .export._source import Source
from .ledgers.check import check
from .ledgers.load import Run
from .text import escape

MANIFEST, INDEX = "publish.json", "index.html"
WAY_OUT = "choose another --to"


@dataclass
class Site:
    """What a call wrote, and the lines of what changed since the last one (empty the first time)."""

    files: list[Path]
    changes: list[str] = field(default_factory=list)


def publish(results: Path, out: Path, *, items: int = 20000, samples: list[Path] | None = None) -> Site:
    """Write the site of `results` into `out`. Raises IcrError, and writes nothing, where `icr check` finds a
    problem in the tree."""
    report = check(results)
    wrong = [text for found in report.problems.values() for text in found]
    if wrong:
        raise IcrError(
            f"{wrong[0]}; `icr check {results}` lists all {len(wrong)}: mend them before publishing"
        )
    before = _manifest(out)
    if (out / INDEX).exists() and INDEX not in (before.get("files") or ()):
        raise IcrError(f"{out / INDEX} is not of an earlier call and would be replaced; choose another --to")
    shown = Items(out, items, samples)
    runs: list[Run] = []

    def seen(run: Run) -> None:
        shown.add(run)
        runs.append(Run(run.folder, run.head, {}))  # its items are not kept

    board = build(results, Options(), seen=seen)
    links = [("Runs", "runs/index.html"), ("board.json", "board.json")]
    data = find_spec("pyarrow") is not None
    links += [("items.parquet", "data/items.parquet"), ("results.parquet", "data/results.parquet")] * data
    with writing(f"the site to {out}", WAY_OUT):
        written = write(board, out, shown, links=links, otherwise=WAY_OUT)
        written += _extra(results, out, board, runs, data)
        changes = _changes(before, board, runs)
        body = _state(board, runs) | {"files": sorted(str(p.relative_to(out)) for p in written)}
        text = ["# What changed", "", *(f"- {escape.markdown(line)}" for line in changes or ["nothing"]), ""]
        write_atomic(out / "changes.md", "\n".join(text).encode())
        body["files"] = sorted([*body["files"], "changes.md"])
        for name in set(before.get("files") or ()) - set(body["files"]):
            _remove(out, name)
        write_atomic(out / MANIFEST, orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
    return Site([*written, out / "changes.md", out / MANIFEST], changes if before else [])


def _extra(results: Path, out: Path, board: Board, runs: list[Run], data: bool) -> list[Path]:
    """index.html, .nojekyll, a page a run, the data."""
    write_atomic(out / INDEX, (out / "board.html").read_bytes())
    write_atomic(out / ".nojekyll", b"")
    written = [out / INDEX, out / ".nojekyll"]
    cells = {(cell.run, cell.task): cell for row in board.rows for cell in row.cells.values()}
    entries = []
    for run in runs:
        name = f"{re.sub(r'[^A-Za-z0-9._=-]+', '_', run.model)[:60]}-{run.fingerprint}.html"
        own = {task: cells.get((run.fingerprint, task)) for task in run.head["tasks"]}
        write_atomic(out / "runs" / name, run_page(run, own).encode())
        written.append(out / "runs" / name)
        entries.append((name, run.model, run.setting, run.prompt, str(run.head.get("status") or "")))
    write_atomic(
        out / "runs" / "index.html", run_page(None, {}, sorted(entries, key=lambda e: e[1:])).encode()
    )
    written.append(out / "runs" / "index.html")
    if data:
        from icr_tasks.registry import EXPORTS

        written += EXPORTS["parquet"](Source(results), out / "data")
    return written


def _state(board: Board, runs: list[Run]) -> dict[str, Any]:
    """What the next call compares with: the runs, and every printed value of the tables."""
    values = {}
    for table in board.tables:
        for line in table.lines:
            for column, cell in zip(table.columns, line.cells, strict=True):
                key = " | ".join([table.title, *(x for x in line.labels if x), column])
                values[key] = render.text(cell)
    return {"schema": 1, "runs": {run.fingerprint: run.label for run in runs}, "values": values}


def _changes(before: dict[str, Any], board: Board, runs: list[Run]) -> list[str]:
    """Runs that came and went, and values of tables that print otherwise than before (the first forty)."""
    if not before:
        return []
    now = _state(board, runs)
    old, new = before.get("runs") or {}, now["runs"]
    lines = [f"new: {new[run]}" for run in new if run not in old]
    lines += [f"gone: {old[run]}" for run in old if run not in new]
    was = before.get("values") or {}
    moved = [f"{k}: {was[k]} to {v}" for k, v in now["values"].items() if k in was and was[k] != v]
    return lines + moved[:40] + ([f"and {len(moved) - 40} more values"] if len(moved) > 40 else [])


def _manifest(out: Path) -> dict[str, Any]:
    try:
        found = orjson.loads((out / MANIFEST).read_bytes())
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise IcrError(f"--to {out} is a file; name a folder for the site") from None
    except (OSError, orjson.JSONDecodeError) as error:
        raise IcrError(f"{out / MANIFEST} cannot be read ({error}); delete it to publish anew") from error
    return found if isinstance(found, dict) else {}


def _remove(out: Path, name: str) -> None:
    """A file of an earlier call, never one outside of the folder."""
    path = (out / name).resolve()
    if path.is_relative_to(out.resolve()) and path.is_file():
        path.unlink()
