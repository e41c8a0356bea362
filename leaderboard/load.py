"""Moved: `icr_tasks.leaderboard.ledgers.load`."""

from __future__ import annotations

import warnings

from .ledgers.load import load

__all__ = ["load"]

warnings.warn(
    "icr_tasks.leaderboard.load moved to icr_tasks.leaderboard.ledgers.load", DeprecationWarning, stacklevel=2
)
