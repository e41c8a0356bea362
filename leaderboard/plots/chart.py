"""A chart: a Vega-Lite spec made with Altair, its words, and the static picture of it.

chart = curve("HELMET-RAG by context length", lines)
chart.svg(); chart.svg(dark=True)       # static, the same bytes each time in one environment
chart.spec                              # what board.html draws, with `bundle()` and no network
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ParamSpec
from xml.sax.saxutils import escape

from icr_tasks.errors import IcrError, install_hint
from icr_tasks.storage import cache_root, write_atomic

from ..text.escape import visible
from .theme import config, painted

P = ParamSpec("P")
NEEDS = f"pictures need the extra [board]: {install_hint('board')}"


def available() -> bool:
    """Whether charts can be drawn: Altair makes them, vl-convert turns them into SVG and brings the scripts."""
    return find_spec("altair") is not None and find_spec("vl_convert") is not None


def altair() -> Any:
    """Altair, loaded at first use. Raises IcrError naming the extra where it is not installed."""
    if not available():
        raise IcrError(NEEDS)
    import altair as found

    return found


def clean(text: object) -> str:
    """Text for a chart, one line; characters that XML forbids are shown as the replacement character."""
    return "".join(
        " "
        if c in "\t\n"
        else c
        if (c >= " " and not 0xD800 <= ord(c) <= 0xDFFF and c not in "\ufffe\uffff")
        else "\ufffd"
        for c in visible(text)
    )


def short(text: str, limit: int) -> str:
    """Text cut to `limit` characters in the middle, where names differ least."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[:head] + "…" + text[len(text) - (limit - 1 - head) :]


@dataclass(frozen=True)
class Chart:
    """`words` say what the picture shows, for readers without eyes on it. `rows` of it that found no place are
    named in the title."""

    title: str
    words: str
    spec: dict[str, Any]

    def svg(self, *, dark: bool = False) -> str:
        """The static picture, as a whole file."""
        drawn = painted(self._unpainted, dark)
        head, body = re.match(r"(<svg [^>]*)>(.*)", drawn, re.S).groups()  # type: ignore[union-attr]
        title, words = (escape(clean(t), {'"': "&quot;", "'": "&#39;"}) for t in (self.title, self.words))
        head = re.sub(r' (?:xmlns:xlink|version|class)="[^"]*"', "", head)
        return f'{head} role="img" aria-label="{title}"><title>{title}</title><desc>{words}</desc>{body}\n'

    @cached_property
    def _unpainted(self) -> str:
        """The picture in stand-ins for a theme's colours: drawing takes 100 times as long as painting."""
        altair()
        import vl_convert

        return str(vl_convert.vegalite_to_svg(self.spec | {"config": config(None)}))


class Sheet:
    """The data of one chart: rows that several layers draw stand in its spec once, under a name."""

    def __init__(self) -> None:
        self.sets: dict[str, list[dict[str, Any]]] = {}

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """An Altair chart over these rows."""
        alt, name = altair(), f"d{len(self.sets)}"
        self.sets[name] = rows
        return alt.Chart(alt.NamedData(name=name))

    def spec(self, chart: Any, title: str, below: str = "") -> dict[str, Any]:
        """The spec of a finished chart under a title and a line `below` it; no theme of Altair's in it."""
        return filled(bare(chart), self.sets, title, below)


def bare(chart: Any) -> dict[str, Any]:
    """The spec of a finished chart without title and data: what charts of one frame share."""
    found: dict[str, Any] = chart.to_dict(validate=False)
    found.pop("config", None)
    return found


def filled(
    frame: dict[str, Any], sets: dict[str, list[dict[str, Any]]], title: str, below: str = ""
) -> dict[str, Any]:
    """A spec from its frame, its data by name and its title with a line `below` it."""
    lines = textwrap.wrap(clean(title), 60, break_long_words=True)[:3] or [""]
    under = {"subtitle": below} if below else {}
    return frame | {"title": {"text": lines if len(lines) > 1 else lines[0], **under}, "datasets": sets}


def unchecked(make: Callable[P, Chart]) -> Callable[P, Chart]:
    """Draws without checking every part against Vega-Lite's schema: that takes 20 times as long as drawing,
    and the tests check whole charts."""

    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Chart:
        with altair().utils.schemapi.debug_mode(False), _table_once():
            return make(*args, **kwargs)

    return made


@contextmanager
def _table_once() -> Iterator[None]:
    """Altair makes a table of all its classes for every word of a chart, a third of the drawing: here once."""
    parts = altair().utils.schemapi
    table = getattr(parts, "_FromDict", None)  # private: an Altair without it is as slow as it was
    if not isinstance(table, type):
        yield
        return
    parts._FromDict = lambda classes: _tables(table, tuple(classes))
    try:
        yield
    finally:
        parts._FromDict = table


@lru_cache(maxsize=8)
def _tables(table: Any, classes: tuple[type, ...]) -> Any:
    return table(classes)


@lru_cache(maxsize=1)
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the installed vl-convert: nothing is fetched."""
    altair()
    import vl_convert

    kept = cache_root() / "vega" / f"{version('vl-convert-python')}.js"  # making it takes seconds
    if kept.is_file() and (found := _checked(kept.read_bytes())) is not None:
        return found
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # either would end or change the element that holds it
    script = script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    script = f"(() => {{{script}\n}})();"  # its names stay its own
    with suppress(OSError):  # a full or read-only disk costs the time, not the board
        raw = script.encode()
        write_atomic(kept, hashlib.sha256(raw).hexdigest().encode() + b"\n" + raw)
    return script


def _checked(raw: bytes) -> str | None:
    """A kept script behind its checksum; None where the file was changed."""
    told, _, script = raw.partition(b"\n")
    return script.decode() if hashlib.sha256(script).hexdigest().encode() == told else None
