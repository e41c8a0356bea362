"""Routes that decide nothing: a setting that sends none of its items on is another setting, and so is one that
sends all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def route_note(sheet: Mapping[str, Any]) -> str | None:
    """One sentence for a task (its entry in run.json) under a route that did not tell its items apart, else
    None."""
    told = sheet.get("route") or {}
    asked, went_on = told.get("items") or 0, told.get("went_on") or 0
    if not asked or 0 < went_on < asked:
        return None
    if went_on:
        return f"all {asked} items went on to the whole context: this is full with a first step in vain"
    return (
        f"none of {asked} items went on to the whole context, the model never said that the answer is not "
        "there: this is retrieval alone"
    )
