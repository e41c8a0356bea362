"""Where the texts around two runs' prompts part: chat template, system text, what the template was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .axes import Refusal

TEXTS = {
    "chat_template": "chat templates",
    "system_instruction": "system texts",
    "template": "template arguments",
}
_BEFORE, _AFTER = 20, 40  # characters shown around the first that differs
_CAUSED = ("template", "prompts")  # checks that such a text explains


def differences(base: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A clause for each text that two run.json know and that differs; older ones know none.

    >>> differences({"texts": {"system_instruction": "Be brief."}}, {"texts": {"system_instruction": "Be kind."}})
    ["the system texts part at character 4: 'Be brief.' and 'Be kind.'"]
    """
    one, two = base.get("texts") or {}, new.get("texts") or {}
    found: list[str] = []
    if not one or not two:
        return found
    for name, words in TEXTS.items():
        a, b = str(one.get(name) or ""), str(two.get(name) or "")
        if a == b:
            continue
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        found.append(f"the {words} part at character {at + 1}: {_near(a, at)} and {_near(b, at)}")
    return found


def explained(refusals: Sequence[Refusal], said: Sequence[str]) -> list[Refusal]:
    """The refusals, the first that such a text explains with it."""
    kept, clause = [], f" ({'; '.join(said)})" if said else ""
    for one in refusals:
        if clause and one.check in _CAUSED:
            one, clause = replace(one, text=one.text + clause), ""
        kept.append(one)
    return kept


def _near(text: str, at: int) -> str:
    if not text:
        return "none"
    start = max(at - _BEFORE, 0)
    shown = repr(text[start : at + _AFTER])
    return f"{'...' if start else ''}{shown}{'...' if at + _AFTER < len(text) else ''}"
