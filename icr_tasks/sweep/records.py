"""What a study's folder knows of each cell: a record once it was evaluated, the request keys while it runs, a lock.

<out>/cells/<fingerprint>.json      the record, written whole and last
<out>/cells/<fingerprint>.requests  keys of the cell's requests in the answer store
<out>/cells/<fingerprint>.lock      held by the process that works on the cell; freed by the kernel if it dies
<out>/answers/*.jsonl               answers as they finish
<out>/lm_eval/<fingerprint>/        lm_eval's own output
<out>/results/                      ledgers
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from ..data.roots import write_atomic
from ..errors import IcrError
from ..models.store import CannotStore
from .cells import Cell

SCHEMA = 1


class Folder:
    """The study's folder. Raises IcrError when it cannot be made."""

    def __init__(self, out: Path, *, create: bool = True) -> None:
        self.out = out
        self.cells, self.answers, self.lm_eval, self.results = (out / n for n in ("cells", "answers", "lm_eval", "results"))  # fmt: skip
        if create:
            try:
                self.cells.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise IcrError(f"cannot make the study folder {out} ({error.strerror}); set `out:` to another") from error  # fmt: skip

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
        record = {"schema": SCHEMA, "fingerprint": cell.fingerprint, "where": list(cell.where), "inputs": cell.inputs, **facts}  # fmt: skip
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
            write_atomic(path, data)
        except OSError as error:
            path.with_name(f".{path.name}.{os.getpid()}").unlink(missing_ok=True)
            raise CannotStore(f"cannot write {path} ({error.strerror}); free space, then run the same command again") from error  # fmt: skip

    def outputs(self, fingerprint: str) -> dict[str, str]:
        """sha256 of each file lm_eval wrote for a cell."""
        root = self.lm_eval / fingerprint
        paths = sorted(p for p in root.rglob("*") if p.is_file())
        return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}

    def whole(self, record: dict[str, Any]) -> bool:
        """True when the record says done and lm_eval's output is as it was written."""
        return record["status"] == "done" and record["outputs"] == self.outputs(record["fingerprint"])

    @contextmanager
    def lock(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold `<name>.lock`; yields False at once when another process holds it and `wait` is False."""
        handle = os.open(self.cells / f"{name}.lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:  # explicitly: an engine started meanwhile as a child holds a copy of the handle
                fcntl.flock(handle, fcntl.LOCK_UN)
        finally:
            os.close(handle)
