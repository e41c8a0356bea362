"""Runs cells on one machine: what is done is skipped, what is stored is kept, what fails does not stop the
others."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from ..credentials import Redactor, redact_text, redacted, secrets_in
from ..engines import answers, early
from ..engines.answers import CannotStore
from ..errors import NO_SPACE, IcrError
from ..harness import flags
from ..harness import run as runs
from ..harness.options import Options
from .cells import Cell, units
from .engine import Engine, Load
from .progress import Progress
from .records import Folder, other_data

log = logging.getLogger("icr_tasks")


class Runner:
    """Works through cells. `failed` counts those that ended with an error or with items the engine failed
    on."""

    def __init__(self, folder: Folder, cells: list[Cell], load: Load | None = None) -> None:
        """`load` makes the models of these cells, and each stream of requests costs it an engine load: all cells
        of one model then go through it as one."""
        self.folder, self.cells, self.load = folder, cells, load
        self.progress = Progress(cells)
        self.failed: dict[str, str] = {}
        self.part: str | None = None  # of the answer store
        self.engine: tuple[str, Engine | str] | None = None

    def run(self) -> dict[str, str]:
        """Run all cells; returns {cell name: reason} of the failed ones. KeyboardInterrupt and CannotStore go
        out."""
        together = units(self.cells) if self.load is None else _by_model(self.cells)
        busy = [cell for unit in together for cell in self._unit(unit, wait=False)]
        for cell in busy:  # in the hands of another process: done when its lock is free, or ours if it died
            self.progress.say(f"waiting for another process: {cell.name}")
            self._unit([cell], wait=True)
        return self.failed

    def _unit(self, cells: list[Cell], *, wait: bool) -> list[Cell]:
        """Run what is free of these cells and return the rest."""
        mine, busy = [], []
        with ExitStack() as stack:
            for cell in cells:
                if not stack.enter_context(self.folder.lock(cell.fingerprint, wait=wait)):
                    busy.append(cell)
                elif self._done(cell):
                    self.progress.cell(cell)
                else:
                    mine.append(cell)
            if mine:
                self._work(mine)
        return busy

    def _done(self, cell: Cell) -> bool:
        record = self.folder.record(cell.fingerprint)
        if record is None:
            if (self.folder.cells / f"{cell.fingerprint}.json").exists():
                self.progress.say(f"the record of {cell.name} is damaged; the cell is scored again")
            return False
        if other_data(record, cell):
            self.progress.say(f"{cell.name} was made with other data; the cell is scored again")
            return False
        whole = self.folder.whole(record)
        if record["status"] == "done" and not whole:
            self.progress.say(f"lm_eval's output of {cell.name} is damaged or gone; the cell is scored again")
        return whole

    def _work(self, cells: list[Cell]) -> None:
        cells = [cell for cell in cells if self._possible(cell)]
        if not cells:
            return
        try:
            engine = self._load(cells[0])
        except Exception as error:
            stop_if_full(error)
            for cell in cells:
                self._fail(cell, f"engine {cell.engine} did not load: {reason(error, *cells)}")
            return
        for cell in self._generate(engine, cells):
            self._finish(engine, cell)

    def _possible(self, cell: Cell) -> bool:
        """False, and the cell failed, where its engine's arguments or its model's configuration rule it out."""
        try:
            early.greedy(cell.engine, flags.generation(cell.gen_kwargs))
            early.refuse(cell.engine, Options.parse(cell.task_metadata).setting, cell.args)
        except IcrError as error:
            self._fail(cell, reason(error, cell))
            return False
        return True

    def _finish(self, engine: Engine, cell: Cell) -> None:
        """What follows once a cell's prompts are answered."""
        self._evaluate(engine, cell)

    def _load(self, cell: Cell) -> Engine:
        """The engine of these cells; one at a time is loaded, and one that cannot load is not tried again."""
        if self.engine is None or self.engine[0] != cell.load_key:
            self.engine = None
            gc.collect()
            self.progress.say(f"loading {cell.engine} {cell.args.get('pretrained', '')}".rstrip())
            try:
                self.engine = (cell.load_key, Engine(cell, self.folder, self.part, self.load))
            except Exception as error:
                log.debug("engine did not load", exc_info=True)
                self.engine = (cell.load_key, reason(error, cell))
            else:
                if damaged := self.engine[1].damaged:  # type: ignore[union-attr]
                    self.progress.say(
                        f"{damaged} damaged lines in the answer store skipped; those items run again"
                    )
        found = self.engine[1]
        if isinstance(found, str):
            raise IcrError(found)
        return found

    def _generate(self, engine: Engine, cells: list[Cell]) -> list[Cell]:
        """Build the prompts of all cells and answer them in one stream; returns the cells that can be
        scored."""
        owners: list[tuple[Cell, int]] = []
        requests: list[Any] = []
        built = []
        for cell in cells:
            try:
                made = self._requests(engine, cell)
            except Exception as error:
                stop_if_full(error)
                self._fail(cell, reason(error, cell))
                continue
            sizes = [r.size for r in made]
            self._note(cell, engine.store.name, made)
            self.progress.built(cell, len(made), sum(sizes))
            owners += [(cell, size) for size in sizes]
            requests += made
            built.append(cell)
        self.progress.start()
        try:
            engine.answer(requests, lambda i, stored: self.progress.item(*owners[i], stored))
        except CannotStore:
            raise
        except Exception as error:
            log.debug("generation stopped", exc_info=True)
            self.progress.say(f"generation stopped ({reason(error, *cells)}); each cell is tried alone")
        finally:
            self.progress.stop()
        return built

    def _requests(self, engine: Engine, cell: Cell) -> list[Any]:
        tasks = runs.build(engine.lm, task_cell(cell), cell.args, cell.gen_kwargs)
        return [r for task in tasks for r in task.instances if r.repeats]

    def _note(self, cell: Cell, store: str, made: list[Any]) -> None:
        self.folder.note_requests(cell, store, answers.keys_of(made), 0, sum(r.size for r in made))

    def _evaluate(self, engine: Engine, cell: Cell) -> None:
        building = self.folder.out / "tmp" / f"{cell.fingerprint}.{os.getpid()}"
        started = time.time()
        try:
            results = runs.evaluate(
                engine.lm,
                task_cell(cell),
                engine=cell.engine,
                model_args=redacted(cell.args),
                gen_kwargs=cell.gen_kwargs,
                out=building,
            )
            self._keep(building, cell)
        except CannotStore:
            raise
        except Exception as error:
            stop_if_full(error)
            log.debug("cell failed", exc_info=True)
            self._fail(cell, reason(error, cell))
            return
        finally:
            shutil.rmtree(building, ignore_errors=True)
        facts = _facts(results["samples"][cell.task], results["configs"][cell.task]["metadata"]["icr"])
        status = "partial" if facts["n_engine_failed"] else "done"
        self.folder.write(
            cell,
            status=status,
            outputs=self.folder.outputs(cell.fingerprint),
            **facts,
            seconds=round(time.time() - started, 2),
            tokens_per_second=self.progress.speed(),
        )
        if status == "partial":
            self.failed[cell.name] = f"{facts['n_engine_failed']} items failed: {facts['reason']}"
        self.progress.cell(cell)

    def _keep(self, building: Path, cell: Cell) -> None:
        """Move lm_eval's output to its place in one step, if it was written whole."""
        for path in building.rglob("*.json*"):
            for raw in path.open("rb") if path.suffix == ".jsonl" else [path.read_bytes()]:
                orjson.loads(raw)
        target = self.folder.lm_eval / cell.fingerprint
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.rename(building.with_name(f"{building.name}.old"))
        building.rename(target)
        shutil.rmtree(building.with_name(f"{building.name}.old"), ignore_errors=True)

    def _fail(self, cell: Cell, reason: str) -> None:
        self.failed[cell.name] = reason
        self.progress.say(f"failed: {cell.name}: {reason}")
        self.folder.write(cell, status="error", reason=reason)
        self.progress.cell(cell)


def _by_model(cells: list[Cell]) -> list[list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.load_key, []).append(cell)
    return list(found.values())


def stop_if_full(error: Exception) -> None:
    """Raise CannotStore where a disk, a quota or a file is full, whatever was being written: every cell would fail."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        where = f" {error.filename}" if error.filename else ""
        raise CannotStore(
            f"cannot write{where} ({os.strerror(error.errno)}); stored answers are kept: free space, then run the same "
            "command again"
        ) from error


def task_cell(cell: Cell) -> runs.Cell:
    return runs.Cell((cell.task,), cell.task_metadata, cell.limit, cell.chat, cell.system)


def _facts(samples: list[dict[str, Any]], sheet: dict[str, Any]) -> dict[str, Any]:
    digests = [
        orjson.loads(next(iter(s["arguments"].values()))["arg_0"])
        if isinstance(s["arguments"], dict)
        else orjson.loads(s["arguments"][0][0])
        for s in samples
    ]
    errors = [d["error"] for d in digests if d.get("error")]
    engine = [d["error"] for d in digests if d.get("error") and d.get("sha256")]  # sent, and then failed
    return {
        "n_items": len(samples),
        "n_failed": len(errors),
        "n_engine_failed": len(engine),
        "reason": (engine or errors or [None])[0],
        "data_source": sheet.get("data_source"),
        "data_revision": sheet.get("data_revision"),
        "n_prompt_tokens": sum(d.get("n_prompt_tokens") or 0 for d in digests),
        "prefill_seconds": round(sum((d.get("timing") or {}).get("prefill", 0) for d in digests), 3),
        "engine_tokens": {
            k: sum((d.get("engine_tokens") or {}).get(k, 0) for d in digests)
            for k in ("prompt", "cached", "output")
        },
        "usd": round(sum((d.get("usage") or {}).get("usd", 0.0) for d in digests), 6),
    }


def reason(error: BaseException, *cells: Cell) -> str:
    """The error as it may be kept: without the credentials of these cells, and without what looks like
    one."""
    known = Redactor(*(s for cell in cells for s in secrets_in([cell.args, cell.metadata])))
    text = redact_text(known(str(error).strip())) or type(error).__name__
    return text if isinstance(error, IcrError) else f"{type(error).__name__}: {text}"
