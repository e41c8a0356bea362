"""Answers that survive: an append-only file of (prompt, generation kwargs) -> answer, one per engine fingerprint.

Each line is written whole and flushed; a line cut off by a kill or a full disk is skipped when the file is read
(counted in `damaged`) and the item is generated again. Several processes may append to one file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import orjson

from ..errors import IcrError


class AnswerStore:
    """Maps a prompt hash to its stored record. `fingerprint` names what changes answers (model, dtype, engine ...)."""

    def __init__(self, folder: str | Path, fingerprint: dict[str, Any]) -> None:
        name = hashlib.sha256(json.dumps(fingerprint, sort_keys=True, default=str).encode()).hexdigest()[:12]
        self.path = Path(folder) / f"{name}.jsonl"
        self.damaged = 0
        self._found: dict[str, dict[str, Any]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise IcrError(
                f"answer store {self.path} cannot be opened ({error.strerror}); choose another store="
            ) from error
        self._read()

    def _read(self) -> None:
        data = self.path.read_bytes()
        for raw in data.splitlines():
            try:
                record = orjson.loads(raw)
                self._found[record["key"]] = record
            except (orjson.JSONDecodeError, KeyError, TypeError):
                self.damaged += 1
        if data and not data.endswith(b"\n"):
            os.write(self._file, b"\n")  # a cut-off last line must not swallow the next one

    @staticmethod
    def key(prompt: str, gen_kwargs: dict[str, Any]) -> str:
        """Identity of a request."""
        text = prompt + "\0" + json.dumps(gen_kwargs, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored record, or None."""
        return self._found.get(key)

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Append a record durably. Raises IcrError when the disk is full; what was stored before stays valid."""
        line = orjson.dumps({"key": key, **record}) + b"\n"
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                written = os.write(self._file, line)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            raise IcrError(f"cannot store an answer in {self.path} ({error.strerror}); stored answers are kept, free space and run again") from error  # fmt: skip
        if written != len(line):
            raise IcrError(f"{self.path}: disk full; stored answers are kept, free space and run again")
        self._found[key] = record

    def __len__(self) -> int:
        return len(self._found)

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)
