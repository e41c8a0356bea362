"""What a number says once it is printed: the form in which values are ordered, marked best and compared.

The last bits of a computed float belong to the processor (which kernel a library took, in which order it
added), so two values that print alike may differ either way. Whatever orders rows, picks a best one or meets
a threshold therefore reads its numbers through this file, and breaks ties by name.
"""

from __future__ import annotations

import math

DIGITS = 9  # decimals that a computed value keeps: far above rounding noise (1e-15), far below what a score can mean


def settled(value: float) -> float:
    """The value without rounding noise: twelve significant digits, at most nine decimals, no minus zero."""
    return round(float(f"{value:.12g}"), DIGITS) + 0.0 if math.isfinite(value) else value


def printed(value: float, digits: int = 1) -> float:
    """The number that stands in a table when `value` is shown with `digits` decimals."""
    return round(settled(value), digits) + 0.0


def figures(value: float, count: int = 3) -> float:
    """The number that stands in a table when `value` is shown with `count` significant digits, as costs
    are."""
    return float(f"{settled(value):.{count}g}")
