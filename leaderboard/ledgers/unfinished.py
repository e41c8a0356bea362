"""Answers that ended for want of tokens: how many there are in a task, and the sentence that says what to
do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MARKED, LOUD = 0.05, 0.5  # above these shares a cell is marked, and `icr collect` warns
FIX = "give more tokens (--gen_kwargs max_gen_toks=...), or less thinking"


def unfinished(sheet: Mapping[str, Any]) -> float:
    """Share of the scored items of a task (its entry in run.json) that were not finished; 0 in old
    ledgers."""
    scored = sheet.get("n_scored") or 0
    return (sheet.get("n_unfinished") or 0) / scored if scored else 0.0


def percent(share: float) -> str:
    """A share in whole per cent; what is there but below half a per cent is "<1%"."""
    return "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"


def cut_note(sheet: Mapping[str, Any], above: float = MARKED) -> str | None:
    """One sentence for a task with more unfinished answers than `above`, else None."""
    share = unfinished(sheet)
    if share <= above:
        return None
    return f"{percent(share)} of the answers are unfinished (out of tokens); {FIX}"
