"""What a study's folder knows of each cell: a record once it was evaluated, the request keys while it runs, a
lock.

<out>/cells/<fingerprint>.json      the record, written whole and last
<out>/cells/<fingerprint>.requests  keys of the cell's requests in the answer store
<out>/cells/<fingerprint>.lock      held by the process that works on the cell; freed by the kernel if it dies
<out>/answers/*.jsonl               answers as they finish
<out>/lm_eval/<fingerprint>/        lm_eval's own output
<out>/results/                      ledgers
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from .. import storage
from ..engines.answers import CannotStore, files_of, record_of
from ..errors import IcrError
from ..leaderboard.ledgers.collect import collect
from ..leaderboard.ledgers.merge import Rules
from ..leaderboard.ledgers.summary import table
from .cells import Cell, matrix
from .progress import guess
from .shards import Divided, listed
from .study import Study

SCHEMA = 1


class Folder:
    """The study's folder. Raises IcrError when it cannot be made."""

    def __init__(self, out: Path, *, create: bool = True) -> None:
        self.out = out
        self.cells, self.answers, self.lm_eval, self.results = (
            out / n for n in ("cells", "answers", "lm_eval", "results")
        )
        if create:
            try:
                self.cells.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise IcrError(
                    f"cannot make the study folder {out} ({error.strerror}); set `out:` to another"
                ) from error

    def record(self, fingerprint: str) -> dict[str, Any] | None:
        """The record of a cell; None when there is none or it is damaged (the cell then runs again)."""
        path = self.cells / f"{fingerprint}.json"
        try:
            found = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None

    def records(self) -> Iterator[dict[str, Any]]:
        """All readable records, also of cells the study no longer has."""
        for path in sorted(self.cells.glob("*.json")):
            if (found := self.record(path.stem)) is not None:
                yield found

    def write(self, cell: Cell, **facts: Any) -> dict[str, Any]:
        """Write a cell's record."""
        record = {
            "schema": SCHEMA,
            "fingerprint": cell.fingerprint,
            "where": list(cell.where),
            "inputs": cell.inputs,
            **facts,
        }
        self._write(self.cells / f"{cell.fingerprint}.json", orjson.dumps(record, option=orjson.OPT_INDENT_2))
        return record

    def note_requests(self, cell: Cell, store: str, keys: list[str], n_not_sent: int, n_tokens: int) -> None:
        """Remember which answers a cell waits for, so that `icr status` can count them."""
        facts = {"store": store, "keys": keys, "n_not_sent": n_not_sent, "n_tokens": n_tokens}
        self._write(self.cells / f"{cell.fingerprint}.requests", orjson.dumps(facts))

    def requests(self, fingerprint: str) -> dict[str, Any] | None:
        """What `note_requests` wrote, or None."""
        try:
            return orjson.loads((self.cells / f"{fingerprint}.requests").read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        try:
            storage.write_atomic(path, data)
        except OSError as error:
            raise CannotStore(
                f"cannot write {path} ({error.strerror}); free space, then run the same command again"
            ) from error

    def outputs(self, fingerprint: str) -> dict[str, str]:
        """sha256 of each file lm_eval wrote for a cell."""
        root = self.lm_eval / fingerprint
        paths = sorted(p for p in root.rglob("*") if p.is_file())
        found = {}
        for path in paths:
            with path.open("rb") as file:
                found[str(path.relative_to(root))] = storage.sha256(file)
        return found

    def whole(self, record: dict[str, Any]) -> bool:
        """True when the record says done and lm_eval's output is as it was written."""
        return record["status"] == "done" and record["outputs"] == self.outputs(record["fingerprint"])

    def done(self, cell: Cell) -> bool:
        """True when the cell's record is whole and of the data that this machine has."""
        record = self.record(cell.fingerprint)
        return record is not None and self.whole(record) and not other_data(record, cell)

    def lock(self, name: str, *, wait: bool) -> AbstractContextManager[bool]:
        """Hold `<name>.lock`; False at once when another process holds it and `wait` is False."""
        return storage.lock(self.cells / f"{name}.lock", wait=wait)


def other_data(record: dict[str, Any], cell: Cell) -> bool:
    """Whether a record was made with other data than this machine has; False where it has none."""
    made = record.get("data_revision")
    return made is not None and (now := cell.data_revision) is not None and now != made


# ---- ledgers -------------------------------------------------------------------------------------
# From the cells of a study folder to its ledgers, safe while other processes run the same study.

_BUILDING = re.compile(r"\.[0-9a-f]{12}\.\d+\Z")


def current(folder: Folder, cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Records with whole output; where a cell was run under changed inputs, that of the study's `cells`, else the
    newest."""
    asked = {cell.fingerprint for cell in cells}
    newest: dict[tuple[str, ...], tuple[tuple[bool, float], dict[str, Any]]] = {}
    for record in folder.records():
        output = folder.lm_eval / record["fingerprint"]
        if record["status"] == "error" or not folder.whole({**record, "status": "done"}):
            continue
        made = (
            record["fingerprint"] in asked,
            output.stat().st_mtime,
        )  # an older one, where it is asked again
        where = tuple(record["where"])
        if where not in newest or newest[where][0] <= made:
            newest[where] = made, record
    return [record for _, record in newest.values()]


def write(folder: Folder, cells: Iterable[Cell], *, show: bool = False) -> str:
    """Write the ledgers of all finished cells, as the study's `cells` ask them now; with `show`, returns their table.

    The table reads the ledgers, so it is made before another process may replace them.
    """
    with folder.lock("results", wait=True):
        _sweep_up(folder)
        outputs = [folder.lm_eval / record["fingerprint"] for record in current(folder, cells)]
        # What the ledgers hold is of these same cells: a result of an older study file must not beat them by its size.
        runs = collect(outputs, folder.results, rules=Rules(replace=True)) if outputs else []
        return table(runs) if show else ""


def _sweep_up(folder: Folder) -> None:
    """Remove what killed processes left half-built: nobody else writes ledgers while we hold the lock."""
    for path in folder.results.glob("*/*/.*"):
        if _BUILDING.match(path.name):
            shutil.rmtree(path, ignore_errors=True)
    for path in (folder.out / "tmp").glob("*.*"):
        with folder.lock(path.name.partition(".")[0], wait=False) as free:
            if free:
                shutil.rmtree(path, ignore_errors=True)


# ---- status --------------------------------------------------------------------------------------
# How far each cell is, why, and the command that closes each gap. Reads the study's folder, and of the data that are
# here only which they are: no model.

STATES = ("done", "partial", "stale", "error", "missing")


@dataclass(frozen=True)
class State:
    """One cell: `state` of STATES, items answered of `n_items`, the reason and the command (None when
    done)."""

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
    folder, cells = Folder(study.out, create=False), matrix(study)
    divided = Divided.of(study.out, cells)
    older: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in folder.records():
        older.setdefault(tuple(record["where"]), []).append(record)
    stored: dict[str, set[str]] = {}
    return [_state(study, folder, cell, older.get(cell.where, []), stored, divided) for cell in cells]


def _state(
    study: Study,
    folder: Folder,
    cell: Cell,
    older: list[dict[str, Any]],
    stored: dict[str, set[str]],
    divided: Divided | None,
) -> State:
    record, asked = folder.record(cell.fingerprint), folder.requests(cell.fingerprint)
    n_items, waits = len(asked["keys"]) if asked else guess(cell)[0], None
    if asked is None and divided is not None:
        asked, waits = divided.asked(cell.fingerprint)
        n_items = n_items if waits or asked is None else len(asked["keys"])
    n_done = len(_keys(folder, asked["store"], stored) & set(asked["keys"])) if asked else 0
    again = f"icr sweep {study.spelled} --only {cell.fingerprint}"

    def state(name: str, done: int, items: int, note: str = "", command: str | None = again) -> State:
        return State(cell.fingerprint, *cell.where, name, done, items, note, command)

    if record and record["status"] != "error":
        done, items = record["n_items"] - record["n_failed"], record["n_items"]
        note = f"{record['n_failed']} not sent: {record['reason']}" if record["n_failed"] else ""
        if other_data(record, cell):
            was, now = record["data_revision"], cell.data_revision
            return state("stale", 0, items, f"made with other data ({was}; now {now})")
        if not folder.whole({**record, "status": "done"}):
            return state(
                "partial", n_done, n_items, "lm_eval's output is damaged or gone; the answers are stored"
            )
        return (
            state("done", done, items, note, None)
            if record["status"] == "done"
            else state("partial", done, items, note)
        )
    if record:
        return state("error", n_done, n_items, str(record["reason"]))
    if divided is not None and waits is not None:
        way = f"--shard {waits[0]}" if waits else "--merge"
        note = f"shard {listed(waits)} not finished" if waits else "answered by all shards, not scored"
        command = f"icr sweep {study.spelled} {way}"
        return state("partial" if asked else "missing", n_done, n_items, note, command)
    if n_done:
        return state("partial", n_done, n_items, "interrupted, or running now")
    if old := [r for r in older if r["fingerprint"] != cell.fingerprint and r["status"] != "error"]:
        return state(
            "stale", 0, n_items, f"made with other {', '.join(_changed(old[-1]['inputs'], cell.inputs))}"
        )
    return state("missing", 0, n_items)


def _keys(folder: Folder, name: str, known: dict[str, set[str]]) -> set[str]:
    """Keys in an answer store, read without touching it: another process may be writing."""
    if name not in known:
        known[name] = set()
        for path in files_of(folder.answers, name):
            for raw in path.open("rb"):
                if (
                    record := record_of(raw.rstrip(b"\n"))
                ) is not None:  # else the sweep repairs and reports it
                    known[name].add(record["key"])
    return known[name]


def _changed(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*old, *new}):
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            found += _changed(old[key], new[key], f"{prefix}{key}.")
        elif old.get(key) != new.get(key):
            found.append(f"{prefix}{key}")
    return found


def status_table(found: list[State]) -> str:
    """One line a cell, then the gaps with their commands."""
    head = ("model", "setting", "prompt", "task", "state", "items")
    rows = [(s.model, s.setting, s.prompt, s.task, s.state, f"{s.n_done}/{s.n_items}") for s in found]
    lines = columns([head, *rows], right=(5,))
    counts = {state: sum(s.state == state for s in found) for state in STATES}
    lines.append(
        "\n" + ", ".join(f"{n} {state}" for state, n in counts.items() if n) + f" of {len(found)} cells"
    )
    for s in found:
        if s.note or s.command:
            lines.append(
                f"- {s.state}: {s.model} / {s.setting} / {s.prompt} / {s.task}"
                + (f": {s.note}" if s.note else "")
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
