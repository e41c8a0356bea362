"""Numbers on a command line: argparse types that say in words what a number may be. NaN is none of them."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArgumentTypeError(f"{text!r} is not a number")
    return value


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = number(text)
    if value <= 0:
        raise ArgumentTypeError(f"{text} is not above 0")
    return value


def amount(text: str) -> float:
    """A finite number, 0 or more."""
    value = number(text)
    if value < 0:
        raise ArgumentTypeError(f"{text} is below 0")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def at_least(low: int) -> Callable[[str], int]:
    """A whole number, `low` or more."""

    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < low:
            raise ArgumentTypeError(f"{text} is below {low}")
        return value

    return whole
