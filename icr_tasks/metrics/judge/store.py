"""Verdicts that survive: one sqlite file for all runs, every raw reply kept, a usable verdict never asked for
again.

    ~/.cache/icr-tasks/verdicts.sqlite        ($XDG_CACHE_HOME)

Replies are written as they arrive, so an interrupted run continues where it stopped. Several processes may
share the file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import IcrError
from ...storage import cache_root

log = logging.getLogger("icr_tasks")
_SCHEMA = 1
_DELAY = 0.5  # seconds: one synchronised write for all verdicts of that time, not one each
_TABLE = """CREATE TABLE IF NOT EXISTS replies (
    key TEXT NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL, revision TEXT NOT NULL, version TEXT NOT NULL,
    item TEXT, status TEXT NOT NULL, value TEXT, reason TEXT, reply TEXT, at REAL NOT NULL)"""


def default_path() -> Path:
    """verdicts.sqlite in the user's cache folder."""
    return cache_root() / "verdicts.sqlite"


def key_of(*parts: str) -> str:
    """Identity of a question to a model: sha256 over the parts, unambiguous in their borders."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class VerdictStore:
    """Raw replies and what was read from them. `path` None keeps them in memory."""

    def __init__(self, path: Path | None) -> None:
        self.path, self._broken = path, False
        self._pending: list[tuple[Any, ...]] = []
        self._written = time.time()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path or ":memory:", timeout=60, isolation_level=None, check_same_thread=False
            )
            self._db.execute(_TABLE)
            self._db.execute("CREATE INDEX IF NOT EXISTS by_key ON replies (key, status)")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _SCHEMA):
                raise IcrError(
                    f"{path} was written by another version (schema {version}); choose another judge_store"
                )
            self._db.execute(f"PRAGMA user_version = {_SCHEMA}")
        except (OSError, sqlite3.Error) as error:
            raise IcrError(
                f"verdict store {path} cannot be used ({error}); choose another judge_store"
            ) from error

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """key -> {"value", "reply"} of the keys that have a usable verdict; the first one ever given
        counts."""
        found = {}
        for key in keys:
            row = self._db.execute(
                "SELECT value, reply FROM replies WHERE key = ? AND status = 'ok' ORDER BY rowid LIMIT 1",
                (key,),
            ).fetchone()
            if row:
                found[key] = {"value": json.loads(row[0]), "reply": row[1]}
        return found

    def put(
        self,
        key: str,
        who: tuple[str, str, str, str],
        item: str,
        replies: list[str],
        value: Any,
        reason: str | None,
    ) -> None:
        """Keep all replies to one question; the last one is the verdict when `reason` is None.

        `who` is (kind, model, revision, version). Written at most half a second later, or by `flush`.
        """
        last, now = len(replies or [""]) - 1, time.time()
        for n, text in enumerate(replies or [None]):  # type: ignore[list-item]
            ok = n == last and reason is None
            self._pending.append(
                (
                    key,
                    *who,
                    item,
                    "ok" if ok else "failed",
                    json.dumps(value) if ok else None,
                    reason,
                    text,
                    now,
                )
            )
        if now - self._written > _DELAY:
            self.flush()

    def flush(self) -> None:
        """Write what is pending. A full disk is logged once; the verdicts still count in this run."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO replies VALUES (?,?,?,?,?,?,?,?,?,?,?)", self._pending)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if not self._broken:
                log.warning("verdicts cannot be kept in %s (%s); this run goes on without", self.path, error)
            self._broken = True
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        self._pending.clear()
        self._written = time.time()

    def last(self, n: int, model: str | None = None, failed: bool = False) -> list[dict[str, Any]]:
        """The n newest rows, oldest of them first."""
        where = "(? IS NULL OR model = ?) AND (NOT ? OR status = 'failed')"
        cursor = self._db.execute(
            f"SELECT * FROM replies WHERE {where} ORDER BY rowid DESC LIMIT ?", (model, model, failed, n)
        )
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor][::-1]

    def close(self) -> None:
        """Release the file."""
        self.flush()
        self._db.close()
