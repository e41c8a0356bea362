"""SIGTERM, which schedulers send before they kill, acts as Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_terminate() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM inside the block; main thread only.

    SIGINT stays as it was inherited: a shell script starts background commands with SIGINT ignored.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
