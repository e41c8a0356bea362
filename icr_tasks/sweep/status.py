"""How far each cell is, why, and the command that closes each gap. Reads only the study's folder: no model, no data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from .cells import Cell, matrix
from .progress import guess
from .records import Folder
from .study import Study

STATES = ("done", "partial", "stale", "error", "missing")


@dataclass(frozen=True)
class State:
    """One cell: `state` of STATES, items answered of `n_items`, the reason and the command (None when done)."""

    fingerprint: str
    model: str
    setting: str
    prompt: str
    task: str
    state: str
    n_done: int
    n_items: int
    note: str = ""
    command: str | None = None


def states(study: Study) -> list[State]:
    """The state of every cell of the study, in matrix order."""
    folder = Folder(study.out, create=False)
    older: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in folder.records():
        older.setdefault(tuple(record["where"]), []).append(record)
    stored: dict[str, set[str]] = {}
    return [_state(study, folder, cell, older.get(cell.where, []), stored) for cell in matrix(study)]


def _state(study: Study, folder: Folder, cell: Cell, older: list[dict[str, Any]], stored: dict[str, set[str]]) -> State:
    record, asked = folder.record(cell.fingerprint), folder.requests(cell.fingerprint)
    n_items = len(asked["keys"]) if asked else guess(cell)[0]
    n_done = len(_keys(folder, asked["store"], stored) & set(asked["keys"])) if asked else 0
    again = f"icr sweep {study.path} --only {cell.fingerprint}"

    def state(name: str, done: int, items: int, note: str = "", command: str | None = again) -> State:
        return State(cell.fingerprint, *cell.where, name, done, items, note, command)

    if record and record["status"] != "error":
        done, items = record["n_items"] - record["n_failed"], record["n_items"]
        note = f"{record['n_failed']} not sent: {record['reason']}" if record["n_failed"] else ""
        if not folder.whole({**record, "status": "done"}):
            return state("partial", n_done, n_items, "lm_eval's output is damaged or gone; the answers are stored")
        return state("done", done, items, note, None) if record["status"] == "done" else state("partial", done, items, note)  # fmt: skip
    if record:
        return state("error", n_done, n_items, str(record["reason"]))
    if n_done:
        return state("partial", n_done, n_items, "interrupted, or running now")
    if old := [r for r in older if r["fingerprint"] != cell.fingerprint and r["status"] != "error"]:
        return state("stale", 0, n_items, f"made with other {', '.join(_changed(old[-1]['inputs'], cell.inputs))}")
    return state("missing", 0, n_items)


def _keys(folder: Folder, name: str, known: dict[str, set[str]]) -> set[str]:
    """Keys in an answer store, read without touching it: another process may be writing."""
    if name not in known:
        known[name] = set()
        path = folder.answers / name
        for raw in path.open("rb") if path.is_file() else ():
            try:
                known[name].add(orjson.loads(raw)["key"])
            except (orjson.JSONDecodeError, KeyError, TypeError):
                continue  # cut off by a kill; the sweep repairs and reports it
    return known[name]


def _changed(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*old, *new}):
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            found += _changed(old[key], new[key], f"{prefix}{key}.")
        elif old.get(key) != new.get(key):
            found.append(f"{prefix}{key}")
    return found


def table(found: list[State]) -> str:
    """One line a cell, then the gaps with their commands."""
    head = ("model", "setting", "prompt", "task", "state", "items")
    rows = [(s.model, s.setting, s.prompt, s.task, s.state, f"{s.n_done}/{s.n_items}") for s in found]
    lines = columns([head, *rows], right=(5,))
    counts = {state: sum(s.state == state for s in found) for state in STATES}
    lines.append("\n" + ", ".join(f"{n} {state}" for state, n in counts.items() if n) + f" of {len(found)} cells")
    for s in found:
        if s.note or s.command:
            lines.append(
                f"- {s.state}: {s.model} / {s.setting} / {s.prompt} / {s.task}" + (f": {s.note}" if s.note else "")
            )
            lines += [f"    {s.command}"] if s.command else []
    return "\n".join(lines)


def columns(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Rows as aligned text; the column numbers in `right` are aligned right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def as_json(found: list[State]) -> list[dict[str, Any]]:
    """The states as plain data."""
    return [asdict(s) for s in found]
