"""Text -> score. `QA`, `MULTIPLE_CHOICE`, `SUMMARY` and `JUDGED` are the metrics a benchmark may name as a
bundle."""

from __future__ import annotations

from .scorers import BUNDLES

QA = BUNDLES["qa"]
MULTIPLE_CHOICE = BUNDLES["longbench"]
SUMMARY = BUNDLES["infbench_sum"]
JUDGED = BUNDLES["loong"]
__all__ = ["JUDGED", "MULTIPLE_CHOICE", "QA", "SUMMARY"]
