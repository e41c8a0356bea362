"""Griffe extension of the docs site: examples in docstrings (`>>>`) are shown as code, not as quotations."""

from __future__ import annotations

from typing import Any

from griffe import Extension


def fenced(text: str) -> str:
    """A docstring whose doctest blocks (from `>>>` to the next empty line) stand in a fence."""
    lines, inside = [], False
    for line in text.splitlines():
        if not inside and line.lstrip().startswith(">>> "):
            lines += ["", "```pycon"]
            inside = True
        if inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line.strip() if inside else line)
    return "\n".join([*lines, "```"] if inside else lines)


class Doctests(Extension):
    """Fences the examples of every object that is read."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called once an object with its docstring is there."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
