"""Five reward functions in two presets, and their adapters for TRL and verl.

>>> row = Row(answers=("Paris",), gold_ids=(3,), gold_docs=("Paris is the capital.",))
>>> score("id", ["[DOC 3]\\nThe answer is: Paris"], [row])[0]["reward"]
2.0
"""

from __future__ import annotations

from .for_trl import trl_reward
from .for_verl import compute_score
from .match import Options, Row, rows
from .paper import JUDGED
from .registry import NAMES, PRESETS, check, score

__all__ = [
    "JUDGED",
    "NAMES",
    "PRESETS",
    "Options",
    "Row",
    "check",
    "compute_score",
    "rows",
    "score",
    "trl_reward",
]
