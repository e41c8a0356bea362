"""Parameters declared as data: type, default, range. Their texts come from settings, YAML files and command
lines.

>>> check_params("kv method topk", {"sink": Whole(4, low=0)}, {"sink": "8"})
{'sink': 8}
"""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import IcrError, unknown


@dataclass(frozen=True)
class Param(ABC):
    """Base: `default`, and `text` for the documentation. A subclass says what a value may be."""

    default: Any
    text: str = ""

    @abstractmethod
    def parse(self, owner: str, name: str, value: Any) -> Any:
        """The value in its type. Raises IcrError in one sentence that names owner, parameter and range."""

    def show(self, value: Any) -> str:
        """As it stands in a setting; parses back to the same value."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"


@dataclass(frozen=True)
class Whole(Param):
    """A whole number from `low` to `high`; `odd=True` refuses even ones."""

    low: int | None = 0
    high: int | None = None
    odd: bool = False

    def parse(self, owner: str, name: str, value: Any) -> int:
        bounds = _bounds(self.low, self.high)
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not _within(value, self.low, self.high):
            raise IcrError(f"{owner}: {name}={value} must be a whole number{bounds}")
        if self.odd and value % 2 == 0:
            raise IcrError(f"{owner}: {name}={value} must be odd")
        return value


def parse_tokens(text: str) -> int:
    """`"512"` -> 512, `"4k"` -> 4096, `"1M"` -> 1048576. Raises IcrError on anything else."""
    match = re.fullmatch(r"(\d+)([kKmM]?)", text.strip())
    if not match or int(match[1]) == 0:
        raise IcrError(f"{text!r} is not a token count; write 512, 4k, 128k or 1M")
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]


@dataclass(frozen=True)
class Tokens(Whole):
    """A whole number of tokens; `4k` and `1M` are understood."""

    def parse(self, owner: str, name: str, value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"\d+[kKmM]", value.strip()):
            value = parse_tokens(value)
        return super().parse(owner, name, value)


@dataclass(frozen=True)
class Number(Param):
    """A finite number from `low` to `high` (ends included)."""

    low: float | None = None
    high: float | None = None

    def parse(self, owner: str, name: str, value: Any) -> float:
        if isinstance(value, str):
            with contextlib.suppress(ValueError):  # what is not a number is refused below
                value = float(value)
        right = isinstance(value, int | float) and not isinstance(value, bool) and value == value
        if not right or value in (float("inf"), float("-inf")) or not _within(value, self.low, self.high):
            raise IcrError(f"{owner}: {name}={value} must be a number{_bounds(self.low, self.high)}")
        return float(value)


@dataclass(frozen=True)
class Flag(Param):
    """on or off; in a setting the bare name means on."""

    def parse(self, owner: str, name: str, value: Any) -> bool:
        words = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False, "": True}
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        if not isinstance(value, bool):
            raise IcrError(f"{owner}: {name}={value} must be on or off")
        return value


@dataclass(frozen=True)
class Word(Param):
    """One of `words`. `bare=True`: a setting writes the word alone (`rag@4k,document`), without `name=`."""

    words: Sequence[str] = ()
    bare: bool = False

    def parse(self, owner: str, name: str, value: Any) -> str:
        if value not in self.words:
            raise unknown(f"{owner} {name}", str(value), self.words)
        return str(value)


@dataclass(frozen=True)
class Name(Param):
    """Any text without a comma: a model, a revision, a folder."""

    def parse(self, owner: str, name: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or "," in value:
            raise IcrError(f"{owner}: {name}={value} must be a text without commas")
        return value


def check_params(owner: str, params: Mapping[str, Param], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values parsed, in declared order. Raises IcrError for an unknown name (with the nearest) or
    value."""
    for name in given:
        if name not in params:
            raise unknown(f"{owner} parameter", name, params)
    return {name: param.parse(owner, name, given[name]) for name, param in params.items() if name in given}


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" between {low} and {high}"
    return f" >= {low}" if low is not None else f" <= {high}" if high is not None else ""
