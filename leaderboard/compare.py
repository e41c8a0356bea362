"""Moved: `icr_tasks.leaderboard.pairs.compare`."""

from __future__ import annotations

import warnings

from .pairs.compare import compare

__all__ = ["compare"]

warnings.warn(
    "icr_tasks.leaderboard.compare moved to icr_tasks.leaderboard.pairs.compare",
    DeprecationWarning,
    stacklevel=2,
)
