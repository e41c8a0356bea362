"""Answers that survive: an append-only file of (prompt, generation kwargs) -> answer, one per engine fingerprint.

Each line is written whole and at once; a line cut off by a kill is skipped when the file is read (counted in
`damaged`) and the item is generated again. Several processes may append to one file and see each other's answers.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from ..errors import IcrError


class CannotStore(IcrError):
    """An answer cannot be written (disk full, quota, read-only): going on would only lose work."""


class AnswerStore:
    """Maps a request's key to its stored record. `fingerprint` names what changes answers (model, dtype, engine ...)."""

    def __init__(self, folder: str | Path, fingerprint: dict[str, Any]) -> None:
        name = hashlib.sha256(json.dumps(fingerprint, sort_keys=True, default=str).encode()).hexdigest()[:12]
        self.path = Path(folder) / f"{name}.jsonl"
        self.damaged = 0
        self._found: dict[str, dict[str, Any]] = {}
        self._read_to = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o644)
            self.refresh()
        except OSError as error:
            raise IcrError(
                f"answer store {self.path} cannot be opened ({error.strerror}); choose another store="
            ) from error

    def refresh(self) -> None:
        """Read what was appended since, by this or another process; the first answer to a request stays."""
        if os.fstat(self._file).st_size == self._read_to:
            return
        with self._locked():
            size = os.fstat(self._file).st_size
            data = os.pread(self._file, size - self._read_to, self._read_to)
            if data and not data.endswith(b"\n"):
                # Nobody is writing now, so this is what a kill left: it must not swallow the next line.
                size += os.write(self._file, b"\n")
            self._read_to = size
        for raw in data.splitlines():
            try:
                record = orjson.loads(raw)
                self._found.setdefault(record["key"], record)
            except (orjson.JSONDecodeError, KeyError, TypeError):
                self.damaged += 1

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    @staticmethod
    def key(prompt: str, gen_kwargs: dict[str, Any]) -> str:
        """Identity of a request."""
        text = prompt + "\0" + json.dumps(gen_kwargs, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored record, or None."""
        return self._found.get(key)

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Append a record. Raises CannotStore when the disk is full; the file then ends with the last whole line."""
        line = orjson.dumps({"key": key, **record}) + b"\n"
        try:
            with self._locked():
                before = os.fstat(self._file).st_size
                try:
                    written = os.write(self._file, line)
                    if written != len(line):  # the rest would not fit: this call raises, with the reason
                        written += os.write(self._file, line[written:])
                except OSError:
                    os.ftruncate(self._file, before)
                    raise
        except OSError as error:
            raise CannotStore(
                f"cannot store an answer in {self.path} ({error.strerror}); stored answers are kept: free space, "
                "then run the same command again"
            ) from error
        self._found.setdefault(key, {"key": key, **record})

    def keys(self) -> set[str]:
        """Keys of all stored answers."""
        return set(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)
