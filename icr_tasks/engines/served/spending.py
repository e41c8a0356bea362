"""What was spent on one served model, over all runs and processes that share a store, and the hard cap on it.

A journal beside the answers: before a request its highest possible price is set aside, after the reply the
real one takes its place. What a killed process had set aside stays counted, because nobody saw whether the
server billed it.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

import orjson

from ...errors import IcrError
from ...storage import locked
from ..answers import CannotStore


class BudgetReached(IcrError):
    """The next request could cost more than what is left; what is answered is kept."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=4)


class Spending:
    """The journal of one model at one address in a store's folder; without a folder only this process counts.

    `limit` in USD, None for no cap.
    """

    def __init__(
        self, folder: str | Path | None, address: str, model: str, limit: float | None = None
    ) -> None:
        self.limit, self.model = limit, model
        self.path: Path | None = None
        self._file: int | None = None
        self._open: dict[str, float] = {}
        self._paid, self._read_to = 0.0, 0
        if folder is None:
            return
        self.path = self.place(folder, address, model)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise IcrError(
                f"the journal of what was spent, {self.path}, cannot be opened ({error.strerror})"
            ) from error
        with locked(self._file):
            self._refresh()

    @staticmethod
    def place(folder: str | Path, address: str, model: str) -> Path:
        """Where the journal of this model lies."""
        name = hashlib.sha256(f"{address}\0{model}".encode()).hexdigest()[:12]
        return Path(folder) / f"spent-{name}.jsonl"

    @property
    def spent(self) -> float:
        """USD so far: paid, and set aside for requests without a reply."""
        return self._paid + sum(self._open.values())

    def reserve(self, usd: float) -> str | None:
        """A ticket for a request that costs at most `usd`; None where it would not fit under the cap."""
        ticket = uuid.uuid4().hex[:16]
        if self._file is None:
            if self.limit is not None and self.spent + usd > self.limit:
                return None
            self._open[ticket] = usd
            return ticket
        with locked(self._file):
            self._refresh()
            if self.limit is not None and self.spent + usd > self.limit:
                return None
            self._append({"id": ticket, "aside": usd})
        return ticket

    def settle(self, ticket: str, usd: float) -> None:
        """What the request did cost, in place of what was set aside for it."""
        if self._file is None:
            self._take({"id": ticket, "usd": usd})
            return
        with locked(self._file):
            self._refresh()
            self._append({"id": ticket, "usd": usd})

    def reached(self, usd: float) -> BudgetReached:
        """The error for a request of at most `usd` that does not fit."""
        return BudgetReached(
            f"budget_usd={self.limit:g} of model {self.model!r}: {self.spent:.4f} USD are spent or under "
            "way, and the "
            f"next request could cost {usd:.4f}; finished answers are kept: raise budget_usd and run the "
            "same command "
            "again"
        )

    def _append(self, line: dict[str, object]) -> None:
        assert self._file is not None
        data = orjson.dumps(line) + b"\n"
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise CannotStore(
                f"cannot write {self.path} ({error.strerror}); stored answers are kept: free space, then "
                "run the same "
                "command again"
            ) from error
        self._refresh()

    def _refresh(self) -> None:
        """Read what this and other processes wrote since; a line that a kill cut off holds no reply."""
        assert self._file is not None
        size = os.fstat(self._file).st_size
        data = os.pread(self._file, size - self._read_to, self._read_to) if size > self._read_to else b""
        if data and not data.endswith(b"\n"):
            size += os.write(self._file, b"\n")
        self._read_to = size
        for raw in data.split(b"\n"):
            try:
                line = orjson.loads(raw) if raw else None
            except orjson.JSONDecodeError:
                continue
            if isinstance(line, dict):
                self._take(line)

    def _take(self, line: dict[str, object]) -> None:
        ticket, aside, usd = str(line.get("id")), line.get("aside"), line.get("usd")
        if isinstance(aside, int | float):
            self._open[ticket] = float(aside)
        elif isinstance(usd, int | float):
            self._open.pop(ticket, None)
            self._paid += float(usd)

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
