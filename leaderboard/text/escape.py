"""Model names, answers and questions are untrusted text: what each output format needs to show them as text
only."""

from __future__ import annotations

import html as _html
import re
from typing import Any

import orjson

from .names import plain

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "−": "-",
}


def markdown(text: object) -> str:
    """For Markdown text and table cells: no markup, no cell border, no HTML, no link, no mention.

    Entities, not backslashes: "<", "&" and "@" stay inert in every renderer.
    """
    special = r"[\\`*{}\[\]<>|#~!@$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # an underscore within a word is only itself
    shown = re.sub(special, lambda found: f"&#{ord(found[0])};", plain(text))
    return shown.replace("://", ":&#47;/").replace("www.", "www&#46;")


def code(text: object) -> str:
    """A Markdown code span where nothing in the text could end it or the table cell, else escaped text."""
    shown = plain(text)
    return markdown(text) if any(c in shown for c in "`|\\") or not shown else f"`{shown}`"


def fence(text: str) -> str:
    """A Markdown code block that its content cannot close."""
    ticks = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{ticks}sh\n{text}\n{ticks}"


def visible(text: object) -> str:
    """Text without control and text-direction characters; line breaks and tabs stay."""
    return _CONTROL.sub("\ufffd", str(text))


def html(text: object) -> str:
    """For HTML content and quoted attributes."""
    return _html.escape(visible(text), quote=True)


def latex(text: object) -> str:
    """For LaTeX running text."""
    return "".join(_LATEX.get(c, c) for c in plain(text))


def csv(value: object) -> str:
    """One CSV field: quoted where needed, and never a formula for a spreadsheet (numbers stay numbers)."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return repr(value) if value == value else ""
    text = plain(value)
    if text[:1] in "=+-@" and text:
        text = "'" + text
    return (
        '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"') or text != text.strip() else text
    )


def tsv(value: object) -> str:
    """One TSV field: `csv` without quotes; `plain` already removed tabs and line breaks."""
    if value is None or isinstance(value, int | float):
        return csv(value)
    text = plain(value)
    return "'" + text if text and text[0] in "=+-@" else text


def script_json(data: Any) -> str:
    """JSON for a <script type="application/json"> element: nothing in it can end the element."""
    text = _CONTROL.sub("\ufffd", orjson.dumps(data).decode())
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
