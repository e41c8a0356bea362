"""Runs one shard of a study, and joins the shards: what `icr sweep --shard` and `--merge` do.

A shard only answers. Whoever finds that all shards have asked a cell's requests scores it, as any sweep does,
from the answers of all; the last shard of a shared folder does, and `--merge` does where none can.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..engines import answers
from ..engines.answers import CannotStore, files_of, record_of
from ..errors import IcrError
from ..harness import run as runs
from ..storage import NoLocks, replacing
from . import records, shards
from .cells import Cell, matrix, units
from .engine import Engine, versions
from .records import Folder
from .runner import Runner, reason, stop_if_full, task_cell
from .shards import Ledger, Shard
from .study import Study

log = logging.getLogger("icr_tasks")


class ShardRunner(Runner):
    """Answers one shard's share of the items of some cells; scores nothing."""

    def __init__(self, folder: Folder, cells: list[Cell], shard: Shard, whole: Sequence[Cell]) -> None:
        """`whole` are all cells of the study, which decide how it is divided."""
        super().__init__(folder, cells)
        self.shard, self.ledger, self.whole = shard, Ledger(folder.out), whole
        self.part = shard.name
        self.progress.left = {
            name: (-(-n // shard.of), tokens // shard.of) for name, (n, tokens) in self.progress.left.items()
        }
        self._units = {unit[0].unit_key: unit for unit in units(whole)}
        self._only: dict[str, dict[str, set[str]]] = {}  # cell -> task -> ids of this shard's items
        self._tasks: dict[str, list[Any]] = {}

    def run(self) -> dict[str, str]:
        """Answer; returns {cell name: reason} of the cells that this shard failed."""
        for unit in units(self.cells):
            todo = [cell for cell in unit if not self._done(cell)]
            for cell in unit:
                if cell not in todo:
                    self.progress.cell(cell)
            if todo:
                self._divide(self._units[unit[0].unit_key])
                self._work(todo)
        return self.failed

    def _divide(self, unit: list[Cell]) -> None:
        """Note this shard's items of a unit's cells: tasks that read the same documents are divided together."""
        places: dict[shards.Place, str] = {}
        asked: dict[str, dict[str, list[Any]]] = {}
        for cell in unit:
            try:
                asked[cell.fingerprint] = runs.items(task_cell(cell), cell.args)
            except Exception:  # the cell fails with its reason when its prompts are built
                log.debug("no items", exc_info=True)
                continue
            for task, items in asked[cell.fingerprint].items():
                places |= {(task, item.id): shards.document_of(item) for item in items}
        mine = {p for p, i in shards.divide(places.items(), self.shard.of).items() if i == self.shard.index}
        for name, tasks in asked.items():
            self._only[name] = {t: {i.id for i in items if (t, i.id) in mine} for t, items in tasks.items()}

    def _requests(self, engine: Engine, cell: Cell) -> list[Any]:
        only = self._only.get(cell.fingerprint)
        tasks = runs.build(engine.lm, task_cell(cell), cell.args, cell.gen_kwargs, only)
        self._tasks[cell.fingerprint] = tasks
        return [r for task in tasks for r in task.instances if r.repeats]

    def _note(self, cell: Cell, store: str, made: list[Any]) -> None:
        """Nothing yet: the cell is noted once it is asked."""

    def _finish(self, engine: Engine, cell: Cell) -> None:
        """Ask what a route leaves to ask, and note the cell as asked."""
        tasks = self._tasks.pop(cell.fingerprint)
        requests = [r for task in tasks for r in task.instances if r.repeats]
        try:
            for request, text in zip(requests, engine.answer(requests), strict=True):
                request.resps.extend([text] * request.repeats)
            errors = [str(e) for r in requests if (e := r.found.get("error"))]
            for task in tasks:
                if task.instances:
                    task.go_on()
        except CannotStore:
            raise
        except Exception as error:
            stop_if_full(error)
            log.debug("cell failed", exc_info=True)
            self._fail(cell, reason(error, cell))
            return
        self.ledger.note(
            self.shard,
            cell,
            store=engine.store.name,
            keys=answers.keys_of(requests),
            n_items=sum(len(task.instances) for task in tasks),
            n_failed=len(errors),
            tokens_per_second=self.progress.speed(),
        )
        if errors:
            self.failed[cell.name] = f"{len(errors)} items failed: {errors[0]}"
        self.progress.cell(cell)


def run_shard(runner: ShardRunner) -> dict[str, str]:
    """Answer this shard's share; score what all shards have asked by then. Returns the failed cells."""
    failed = runner.run()
    missing = {c.fingerprint for some in _missing(runner).values() for c in some}
    joined = [c for c in runner.cells if c.fingerprint not in missing]
    if not joined:
        return failed
    rest = Runner(runner.folder, joined)
    rest.part, rest.engine = runner.part, runner.engine
    try:
        failed = {**failed, **rest.run()}
        records.write(runner.folder, runner.whole)
    except NoLocks as error:
        runner.progress.say(
            f"not scored here ({error}): icr sweep STUDY -o FOLDER --merge {runner.folder.out}"
        )
    return failed


def _missing(runner: ShardRunner) -> dict[Shard, list[Cell]]:
    return shards.missing(runner.ledger, runner.cells, runner.shard.of)


def begin(found: Study, shard: Shard) -> ExitStack:
    """Take this shard in the study's folder; it is held until the returned block ends.

    Raises IcrError where another process works on it, and where the shards there are of another study, plan,
    division or version.
    """
    folder, held = Folder(found.out), ExitStack()
    try:
        free = held.enter_context(folder.lock(f"shard-{shard.name}", wait=False))
    except NoLocks:
        free = True  # whoever starts the shards starts each once
    if not free:
        raise IcrError(
            f"another process works on shard {shard} in {found.out}; wait for it, or take another shard"
        )
    ledger, cells, told = Ledger(found.out), matrix(found), versions()
    mine = shards.head_of(found.path, shard, cells, told)
    for other, head in ledger.heads().items():
        if (why := shards.refusal(mine, head, str(found.out))) is None:
            continue
        if not _ended(folder, head):
            held.close()
            raise IcrError(why)
        (ledger.root / f"{other.name}.json").unlink(missing_ok=True)
        shutil.rmtree(ledger.root / other.name, ignore_errors=True)
    ledger.head(found.path, shard, cells, told)
    return held


def _ended(folder: Folder, head: dict[str, Any]) -> bool:
    """Whether every cell that this shard was made for is scored: it is history then."""
    records = [folder.record(fingerprint) for fingerprint in head["cells"]]
    return all(record is not None and folder.whole(record) for record in records)


# ---- merge ---------------------------------------------------------------------------------------


def gather(found: Study, folders: Sequence[Path]) -> None:
    """Bring the shards of these folders into the study's own. A shard that is there already is joined by its
    requests, where the first answer stands. Raises IcrError for shards that are not parts of one run, and for those of
    other versions than are here, whose answers would be asked anew, unless every cell is scored."""
    home, folder, cells = Ledger(found.out), Folder(found.out), matrix(found)
    told = None if all(folder.done(cell) for cell in cells) else versions()
    first: dict[str, Any] | None = None
    for place in dict.fromkeys([found.out, *folders]):
        there = Ledger(place).heads()
        if not there and place != found.out:
            raise IcrError(f"{place} holds no shard; name the folders that `icr sweep --shard i/n -o` wrote")
        for shard, head in there.items():
            mine = shards.head_of(found.path, shard, cells, head["versions"] if told is None else told)
            why = shards.refusal(mine, head, str(place)) or (
                shards.refusal(first, head, str(place)) if first else None
            )
            if why and place == found.out and _ended(folder, head):
                continue  # of an earlier division, which was scored
            if why:
                raise IcrError(why)
            first = first or head
    if first is None:
        raise IcrError(f"{found.out} holds no shard; name the folders of the shards after --merge")
    for place in dict.fromkeys(folders):
        if place.resolve() != found.out.resolve():
            twice = sum(_copy(path, found.out / "answers" / path.name) for path in _answer_files(place))
            if twice:
                print(
                    f"{place}: {twice} requests were answered there and elsewhere, not alike; the first answer stands",
                    file=sys.stderr,
                )
            for path in sorted((place / "shards").rglob("*.json")):
                target = home.root / path.relative_to(place / "shards")
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as temporary:
                    shutil.copyfile(path, temporary)


def _answer_files(place: Path) -> list[Path]:
    return sorted((place / "answers").glob("*.jsonl"))


def _copy(source: Path, target: Path) -> int:
    """Add the lines of a file that the target lacks; returns how many requests have another text there."""
    known: dict[str, Any] = {}
    there = target.read_bytes() if target.is_file() else b""
    lines = there.splitlines()
    if not source.name.startswith("spent-"):
        stem = source.name.partition(".")[0]
        for path in files_of(target.parent, f"{stem}.jsonl"):
            for raw in path.read_bytes().splitlines():
                if (record := record_of(raw)) is not None:
                    known.setdefault(record["key"], record["text"])
    have, new, differ = set(lines), [], 0
    for raw in source.read_bytes().splitlines():
        if raw in have:
            continue
        record = record_of(raw)
        if record is not None and record["key"] in known:
            differ += known[record["key"]] != record["text"]
            continue
        new.append(raw)
    target.parent.mkdir(parents=True, exist_ok=True)
    if new or not target.is_file():
        with replacing(target) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in [*lines, *new]))
    return differ


def lacking(found: Study, chosen: Sequence[Cell]) -> dict[Shard, list[Cell]]:
    """Shards of the study's folder that are not there yet, with the cells that wait for them."""
    divided = shards.Divided.of(found.out, matrix(found))
    return shards.missing(divided.ledger, chosen, divided.n) if divided else {}
