"""Packed prompts that wait for their engine: the first of a process in memory, the rest in a file without a name.

lm-eval builds every prompt of a run before it asks for the first answer. Packed they are a third to two fifths of the
text: a gigabyte for 5,000 prompts of 128k tokens, for as long as the engine works. What `MEMORY` does not hold goes to
the temporary folder (TMPDIR), where no other process can open it and nothing is left behind, however this one ends.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from typing import IO

MEMORY = 8 << 20  # bytes of prompts that stay in memory

_log = logging.getLogger(__name__)


class Store:
    """Where packed prompts wait. Threads may share it; a forked child makes its own file and still reads its parent's."""

    def __init__(self, memory: int | None = None) -> None:
        self._most = MEMORY if memory is None else memory
        self._lock = threading.Lock()
        self._held = 0  # bytes in memory
        self._file: IO[bytes] | None = None
        self._owner, self._end, self._live = 0, 0, 0

    def put(self, data: bytes) -> Waiting:
        """Keep `data` until it is dropped."""
        with self._lock:
            if self._held + len(data) <= self._most or not self._room():
                self._held += len(data)
                return Waiting(self, data)
            file = self._file
            assert file is not None
            try:
                _whole(file.fileno(), data, self._end)
            except OSError as error:  # a full disk costs memory, not the run
                _log.warning(
                    "prompts stay in memory: %s has no room for them (%s)", tempfile.gettempdir(), error
                )
                self._most = 1 << 62
                self._held += len(data)
                return Waiting(self, data)
            place = (file, self._end, len(data))
            self._end, self._live = self._end + len(data), self._live + 1
            return Waiting(self, None, place)

    def _room(self) -> bool:
        """Open the file of this process, or say no."""
        if self._file is not None and self._owner == os.getpid():
            return True
        try:
            self._file = tempfile.TemporaryFile(prefix="icr-prompts-")  # noqa: SIM115 - as long as the store
        except OSError as error:
            _log.warning("prompts stay in memory: no file in %s (%s)", tempfile.gettempdir(), error)
            self._most = 1 << 62
            return False
        self._owner, self._end, self._live = os.getpid(), 0, 0
        return True

    def dropped(self, size: int, file: IO[bytes] | None) -> None:
        """Bytes that nobody will ask for again; an emptied file gives its room back."""
        with self._lock:
            if file is None:
                self._held -= size
            elif file is self._file and self._owner == os.getpid():
                self._live -= 1
                if not self._live:
                    file.truncate(0)
                    self._end = 0


class Waiting:
    """One packed prompt."""

    __slots__ = ("_data", "_place", "_store")

    def __init__(
        self, store: Store | None, data: bytes | None, place: tuple[IO[bytes], int, int] | None = None
    ) -> None:
        self._store, self._data, self._place = store, data, place

    def get(self) -> bytes:
        """The bytes that were given. Raises OSError when the file cannot be read."""
        if self._data is not None:
            return self._data
        assert self._place is not None
        file, begin, size = self._place
        found = os.pread(file.fileno(), size, begin)
        while len(found) < size:
            more = os.pread(file.fileno(), size - len(found), begin + len(found))
            if not more:
                raise OSError(
                    f"the file of waiting prompts ends at {begin + len(found)}, not at {begin + size}"
                )
            found += more
        return found

    def drop(self) -> None:
        """Let go of it; `get` is not asked afterwards."""
        if self._store is not None:
            size = len(self._data) if self._data is not None else 0
            self._store.dropped(size, self._place[0] if self._place else None)
        self._store = self._data = self._place = None

    def __reduce__(self) -> tuple[object, ...]:
        """A copy, also in another process, holds its bytes itself."""
        return (Waiting, (None, self.get()))


def _whole(descriptor: int, data: bytes, begin: int) -> None:
    """All of the bytes at a place of a file."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, begin)
        view, begin = view[written:], begin + written


STORE = Store()  # of this process
