"""One line that says how far a sweep is and when it will end, by prompt tokens: items differ a thousandfold
in cost."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

from ..benchmarks import catalog
from ..settings import Setting, parse_tokens
from .cells import Cell

_QUESTION = 300
_EVERY = (0.5, 30.0)  # seconds between lines: terminal, log file


def guess(cell: Cell) -> tuple[int, int]:
    """(items, prompt tokens) of a cell before its prompts are built, from its data sheet."""
    sheet, setting = catalog.sheet_of(cell.task), Setting.parse(cell.setting)
    items = min(int(sheet.get("n") or 100), cell.limit or sys.maxsize)
    length = (
        parse_tokens(sheet["length"]) if sheet.get("length") else int(sheet.get("typical_tokens", 100_000))
    )
    if setting.kind == "none":
        length = 0
    elif setting.kind == "rag":
        length = min(length, int(setting.amount or 0))
    elif setting.kind == "route":
        length += int(setting.amount or 0)  # at most: both steps
    return items, items * (length + _QUESTION)


class Part(Protocol):
    """What is counted together: a cell, or all that a demonstration asks."""

    @property
    def fingerprint(self) -> str:
        """Tells parts apart."""


class Progress:
    """Counts cells, items and tokens; `eta` comes from the tokens generated in this process so far. Without
    cells only what was `built` is counted."""

    def __init__(self, cells: list[Cell], out: TextIO | None = None) -> None:
        self.out = out or sys.stderr
        self.left = {cell.fingerprint: guess(cell) for cell in cells}
        self.total_cells, self.cells, self.items, self.stored = len(cells), 0, 0, 0
        self._tokens, self._busy, self._shown = 0, 0.0, 0.0
        self._since: float | None = None

    def built(self, cell: Part, items: int, tokens: int) -> None:
        """The cell's real size is known."""
        self.left[cell.fingerprint] = (items, tokens)

    def start(self) -> None:
        """The engine begins to work."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """The engine rests: scoring and building do not count for its speed."""
        if self._since is not None:
            self._busy += time.monotonic() - self._since
        self._since = None

    def item(self, cell: Part, tokens: int, stored: bool) -> None:
        """One answer is there."""
        items, left = self.left.get(cell.fingerprint, (0, 0))
        self.left[cell.fingerprint] = (max(items - 1, 0), max(left - tokens, 0))
        self.items += 1
        self.stored += stored
        self._tokens += 0 if stored else tokens
        self.show()

    def cell(self, cell: Cell) -> None:
        """A cell is finished, or given up."""
        self.left.pop(cell.fingerprint, None)
        self.cells += 1
        self.show(force=True)

    def speed(self) -> float | None:
        """Prompt tokens a second in this process so far, decoding and prefix sharing included; None before
        any."""
        busy = self._busy + (time.monotonic() - self._since if self._since is not None else 0)
        return round(self._tokens / busy, 1) if self._tokens and busy else None

    def eta(self) -> float | None:
        """Seconds left at the speed so far; None before anything was generated."""
        speed = self.speed()
        return sum(tokens for _, tokens in self.left.values()) / speed if speed else None

    def line(self) -> str:
        """The line as text."""
        items = sum(n for n, _ in self.left.values())
        text = f"cells {self.cells}/{self.total_cells}  " if self.total_cells else ""
        text += f"items {self.items}/{self.items + items}"
        if self.stored:
            text += f" ({self.stored} stored)"
        speed, seconds = self.speed(), self.eta()
        text += f"  {speed:,.0f} prompt tok/s" if speed else ""
        return text if seconds is None else f"{text}  left {clock(seconds)}"

    def show(self, *, force: bool = False) -> None:
        """Print the line when it is time."""
        terminal, now = self.out.isatty(), time.monotonic()
        if not force and now - self._shown < _EVERY[0 if terminal else 1]:
            return
        self._shown = now
        self.out.write(f"\r\x1b[K{self.line()}" if terminal else f"{self.line()}\n")
        self.out.flush()

    def say(self, text: str) -> None:
        """A line of its own."""
        self.out.write(("\r\x1b[K" if self.out.isatty() else "") + text + "\n")
        self.out.flush()


def clock(seconds: float) -> str:
    """3725 -> `1h02m`; 65 -> `1m05s`; 3 -> `3s`."""
    total = int(seconds + 0.5)
    if total >= 3600:
        return f"{total // 3600}h{total % 3600 // 60:02d}m"
    return f"{total // 60}m{total % 60:02d}s" if total >= 60 else f"{total}s"
