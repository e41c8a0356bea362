"""What a reader of a generation sees: the text without thoughts, channel marks and control tokens.

`visible(text)` runs once, where a generation enters scoring; every scorer, judge and page gets its `text`.
The forms are the table in `thought_forms.py`. A thought that never closed is no answer: nothing after its
mark is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .thought_forms import CONTROL, FIRST, FORMS, NEXT_TURN, OWN_TURN, WRAPPERS


class Visible(NamedTuple):
    """`text` to score; the `thoughts` that were taken out; `closed` is False when the last one never
    ended."""

    text: str
    thoughts: tuple[str, ...] = ()
    closed: bool = True


_TEMPLATE = -1  # the form of a thought that the prompt opened: any mark may close it


def _events() -> re.Pattern[str]:
    parts = []
    for n, form in enumerate(FORMS):
        # An answer's opening is tried before a closing mark, since one may begin like the other.
        for kind, pattern in (("a", form.answers), ("s", form.after), ("o", form.opens), ("c", form.closes)):
            if pattern:
                parts.append(f"(?P<{kind}{n}>{pattern})")
    return re.compile("|".join(parts), re.I | re.M)


_EVENTS = _events()
_FIRST = re.compile(FIRST, re.I | re.M)
_CONTROL = re.compile(CONTROL, re.I)
_NEXT_TURN, _OWN_TURN = re.compile(NEXT_TURN), re.compile(OWN_TURN)
_OPENED = re.compile(
    "(?:" + "|".join(f"(?:{f.opens})" for f in FORMS if not f.opens.startswith(r"\A")) + r")\s*\Z",
    re.I | re.M,
)
_BARE_LABEL = re.compile(r"\A\s*(?:thought\n|assistantfinal(?=\S)|final(?=[A-Z]))")


def visible(text: str, opened: bool = False) -> Visible:
    """The visible answer. `opened`: the prompt ended inside a thought, so the text begins in one.

    A text without any mark comes back unchanged, character by character.
    """
    seen: list[str] = []  # visible pieces so far
    hidden: list[str] = []
    inside: list[int] = [_TEMPLATE] if opened else []
    earlier: list[str] = []  # what the last lone closing mark turned into a thought, should nothing follow it
    last: dict[str | None, int] = {}  # where each kind of mark stands last, once somebody asks
    at, marks, closings = 0, 0, 0
    for match in _marks(text):
        kind, n = str(match.lastgroup)[0], int(str(match.lastgroup)[1:])
        form = FORMS[n]
        # Marks that are no news are passed before anything is copied: a text may hold a million of them.
        if (kind == "o" and n in inside) or (kind == "s" and n not in inside and inside != [_TEMPLATE]):
            continue
        if kind == "c" and not inside and not form.alone:
            continue
        piece = "" if kind == "o" and inside else text[at : match.start()]
        if kind == "o":
            if not inside:
                seen.append(piece)
                at = match.end()
            inside = [n] if inside in ([], [_TEMPLATE]) else [*inside, n]
            marks += 1
        elif kind in "as":
            hidden.append(piece if inside else "".join([*seen, piece]))
            seen, inside, at, marks = [], [], match.end(), marks + 1
        elif inside:
            if n not in inside and _TEMPLATE not in inside:
                last = last or {m.lastgroup: m.start() for m in _marks(text)}
                if last.get(f"c{inside[0]}", -1) >= match.end():
                    continue  # the thought has a closing mark of its own further on
            inside = inside[: inside.index(n)] if n in inside else []
            if not inside:
                hidden.append(piece)
                at, marks, closings = match.end(), marks + 1, closings + 1
        else:
            earlier = [*seen, piece] if closings else []
            hidden.append("".join([*seen, piece]))
            seen, at, marks, closings = [], match.end(), marks + 1, closings + 1
    if inside:
        hidden.append(text[at:])
    else:
        seen.append(text[at:])
    if earlier and not inside and not _CONTROL.sub("", "".join(seen)).strip():
        seen, hidden = earlier, hidden[:-1]  # "thought</think>answer</think>": nothing follows the last mark
    found = _finish(text, seen, hidden, marks > 0 or opened, closed=not inside)
    if not found.closed and len(found.text) < len(text):
        before = visible(found.text)  # a control token that is gone may have hidden another opening mark
        if not before.closed:
            return Visible(before.text, (*before.thoughts, *found.thoughts), False)
    return found


def _marks(text: str, start: int = 0) -> Iterator[re.Match[str]]:
    """All marks in order. Only where one can begin is the long pattern tried: a text may have ten million
    signs."""
    place: re.Match[str] | None
    if start == 0 and (first := _EVENTS.match(text)):
        yield first
        start = first.end()
    while place := _FIRST.search(text, start):
        found = _EVENTS.match(text, place.start())
        if found:
            yield found
        start = found.end() if found else place.start() + 1


def _finish(text: str, seen: list[str], hidden: list[str], marked: bool, *, closed: bool) -> Visible:
    body = "".join(seen)
    plain = _turns(body) if "<" in body or "[" in body else body
    if marked:
        plain = _BARE_LABEL.sub("", _unwrapped(re.sub(r"</?s>", " ", plain)))
    elif plain == text:
        label = _BARE_LABEL.match(text)
        return Visible(text[label.end() :] if label else text)
    return Visible(plain.strip(), tuple(h.strip() for h in hidden if h.strip()), closed)


def _turns(text: str) -> str:
    """The text without control tokens, up to where the model plays the next turn itself."""
    for cut in _NEXT_TURN.finditer(text):
        if _CONTROL.sub("", text[: cut.start()]).strip():
            text = text[: cut.start()]
            break
    return _CONTROL.sub(" ", _OWN_TURN.sub(" ", text))


def _unwrapped(text: str) -> str:
    """The inside of one wrapper that holds the whole text; its closing tag may be missing (a cut)."""
    whole = text.strip()
    for start, end in (pair for n in WRAPPERS for pair in ((f"<{n}>", f"</{n}>"), (f"[{n}]", f"[/{n}]"))):
        if whole[: len(start)].lower() != start:
            continue
        inner = whole[len(start) :]
        if end not in inner.lower():
            return inner
        return inner[: -len(end)] if inner.lower().find(end) == len(inner) - len(end) else text
    return text


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends inside a thought, as the templates of DeepSeek-R1, QwQ, Qwen3.5 and others do."""
    return _OPENED.search(prompt[-200:]) is not None


def as_text(value: Any) -> str | None:
    """A generation as text, None for what is none (a null, a number, a list); lone surrogates are
    replaced."""
    if not isinstance(value, str):
        return None
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
