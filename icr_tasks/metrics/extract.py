"""The final answer in a generation.

Formats asked for by the prompts ("Answer: X", "The answer is: X", the correct answer is (X)) and what models
make of them: bold, quotes, boxes, tags, JSON, headings with the answer on the next line, words before and
after.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import NamedTuple

from .visible import visible


class Extracted(NamedTuple):
    """`text` is the answer; `found` says whether a formal marker was seen. Without one `text` is the first
    sentence that says something, and `reads`, the text that SubEM searches, is all that was visible."""

    text: str
    found: bool
    reads: str = ""


_CONTROL = re.compile(r"<\|[a-z_]+\|>|</s>|<s>|<\|?(?:end|eot)[^>]*>", re.I)
_NEXT_TURN = re.compile(r"\n[^\S\n]*(?:Question|Human|User|Q)[ \t]{0,4}\d{0,4}[ \t]{0,4}[:：]", re.I)
_EMPHASIS = r"[*_`]{0,3}"
# Repeats are bounded: a text may have ten million signs.
_LEAD = r"(?:(?:my|the|so the|therefore,? the)\s{1,8})?(?:(?:final|correct|short|concise|best)\s{1,8}){0,4}"
# "Answer: X" anywhere in a line; "answer is X" also without a colon. A bare mention ("to answer the
# question") is no marker. A colon may be a full-width one, as models write it that read much Chinese.
_MARKER = re.compile(
    rf"{_EMPHASIS}\b(?<!long )(?<!detailed )(?<!longer ){_LEAD}answer{_EMPHASIS}[ \t]*(?:(?:to\s+(?:the|this|your)\s+question\s+)?{_EMPHASIS}(?:is|was|are|would be)\b{_EMPHASIS}\s*[:：]?|[:：]){_EMPHASIS}"
    rf"|^[ \t#>*_]{{0,12}}(?:\d+[.)]\s*)?{_LEAD}answer[*_ \t#]*$",  # a heading: the answer is on the next line
    re.I | re.M,
)
_KEY = re.compile(r"[\"'](?:(?:final|short|correct|the)[_ ]?)?answer[\"']\s*:\s*", re.I)
_TAG = re.compile(r"<(answer|final_answer|final|output|response)>(.*?)(?:</\1>|\Z)", re.I | re.S)
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_LATEX = re.compile(r"\\(?:text(?:bf|it|rm|tt)?|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_PLACEHOLDER = re.compile(
    r"^<?\s*(?:your|insert|the)?\s*(?:final\s+|short\s+)?answer(?:\s+here)?\s*>?\.?$", re.I
)
# Fields and bold marks around nothing; of boxes and tags see `filled`.
_HOLLOW = re.compile(
    r"(?:```(?:json)?\s{0,9})?\{\s{0,99}"
    + _KEY.pattern
    + r"(?:\"\s{0,9}\"|'\s{0,9}'|null|none|\[\s{0,9}\]|\{\s{0,9}\})\s{0,99}\}(?:\s{0,9}```)?"
    r"|(?<![*\w])\*\*[ \t]{0,9}\*\*(?![*\w])",
    re.I,
)
# "The answer is \boxed{}." and its like: where a sentence, or all, ends with the form, its marker goes too.
_SAID_OF_NOTHING = re.compile(
    rf"(?:{_MARKER.pattern})?[ \t*_$]{{0,9}}\0[ \t*_$]{{0,9}}(?:[.!?](?=\s|\Z)|\Z)", re.I | re.M
)
# Words whose final dot does not end a sentence, and single initials.
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|St|Ste|Mr|Mrs|Ms|Mme|Mlle|Dr|Jr|Sr|Prof|Gen|Maj|Brig|Adm|Cmdr|Cdr|Pres|Amb|Col|Lt|Sgt|Cpl|Pvt|Capt|Rev|Fr|Hon"
    r"|Gov|Sen|Rep|Rt|Msgr|Mt|Mts|Ft|Pt|No|Nos|vs?|vol|ch|sec|fig|pp?|eds?|Inc|Corp|Cos?|Ltd|LLC|LLP|Bros|Assn|Dept|Univ|Ave|Blvd"
    r"|Rd|Hwy|Sq|etc|approx|c|ca|cf|al|Op|feat|ft|est|incl|esp|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)|[A-Z](?:\.[A-Za-z])+"
    r"|[ap]\.m|[ie]\.[eg])\.$"
)
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]*_]*(?=\s+[\"'“‘(\[]*[A-Z])")
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|been|has|have|had|does|do|did|can|could|will|would|may|might|must|shall|should|says?|said|states?"
    r"|mentions?|shows?|indicates?|refers?|became|becomes|won|made|makes|comes|came|took|takes|gives?|gave|led|[a-z]{3,}ed)\b"
)
_DASH = re.compile(r"\s[—–-]{1,2}\s")  # a comment follows, not the sentence: "Yahoo! Inc. — as it says"
_NEXT_FIELD = re.compile(
    r"\n[^\S\n]*(?:\*\*|#|\[DOC|Relevant doc|Quote \d|Explanation|Reason|Note|Question|Source|Document|Justification|Human:|User:)",
    re.I,
)
_DOCS = re.compile(
    r"\A\s*(?:\[\s*DOC[^\]]{0,80}\][\s,;:]*){1,99}(?=\S)"
    r"|(?<=[^\s,;])[\s,;]*(?:\[\s*DOC[^\]]{0,80}\][\s,;.]*){1,99}\Z",
    re.I,
)
_NUMBERED = re.compile(r"\A\W*\d{1,2}[.)]\Z")
_LABEL = re.compile(
    r"\s*(?:Explanation|Reason(?:ing)?|Note|Source|Justification|Evidence|Supporting|Relevant)\b.{0,30}[:：]",
    re.I,
)
# Lines that say nothing: a number of a list, a heading, a lead-in, tags, punctuation alone.
_EMPTY = re.compile(
    r"\s*(?:#{1,6}\s.*|\(?\d{1,2}[.)][*_]*|[!-/:-@\[-`{-~\s]*|(?:\[\s*DOC[^\]]{0,80}\]\W*)+|</?\w+>|[^\n]{0,160}[:：]\s*[*_]*|(?:sure|certainly|of course|okay|ok|yes, sure)[!.,]?)\s*",
    re.I,
)
_BULLET = re.compile(r"^[ \t]*(?:\(?\d{1,2}[.)]|[-*•–])[ \t]+", re.M)
_COLONS = (":", "：")
_MARKS, _SPAN = 200, 100_000  # how many markers or ends of sentences, and how far behind, are looked at
_PUNCTUATION = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`", "«": "»"}


def strip_thoughts(text: str) -> str:
    """Text without thoughts and control tokens. A thought that never closed swallows the rest: nothing was
    answered."""
    return _CONTROL.sub(" ", visible(text).text)


def _own_turn(text: str) -> str:
    """The text before the model starts to play the next turn itself (a few-shot habit): it has answered
    before."""
    cuts = [cut.start() for cut in _NEXT_TURN.finditer(text)]
    said = _answered(text) if cuts else 0
    return text[: next((cut for cut in cuts if cut >= said), None)]


def _answered(text: str) -> int:
    """Where the first line ends that answers something, beyond the text where none does."""
    at = 0
    for line in text.split("\n"):
        at += len(line) + 1
        plain = (
            re.search(r"\w", line)
            and not line.rstrip().endswith(_COLONS)
            and not line.lstrip().startswith("#")
        )
        if plain or _says_something(line):
            return at - 1
    return at + 1


def extract_answer(text: str) -> Extracted:
    """The answer after the last formal marker, else the last `\\boxed{}`, else the first sentence that says
    something."""
    text = filled(_own_turn(strip_thoughts(text)))
    for start, kind in reversed(_marks(text)[-_MARKS:]):
        answer = _value(text, start) if kind == "key" else _clean(_span(text[start : start + _SPAN]))
        if answer and not _PLACEHOLDER.match(answer):
            return Extracted(answer, True, answer)
    tags = [_clean(_span(match[2].strip() or "")) for match in _TAG.finditer(text)]
    boxes = [b for b in _BOXED.findall(text) if not b.strip().lower().startswith("criterion")]
    for formal in (tags, [_clean(b) for b in boxes]):
        if formal and formal[-1] and not _PLACEHOLDER.match(formal[-1]):
            return Extracted(formal[-1], True, formal[-1])
    lines = text.splitlines()
    first = next((n for n, line in enumerate(lines) if _says_something(line)), None)
    if first is None:  # a bare number is an answer where nothing else is there
        rest = [line for line in lines if line.strip(_PUNCTUATION)]
        number = len(rest) == 1 and re.fullmatch(r"\s*\(?(\d{1,2})[.)]\s*", rest[0])
        short = number[1] if number else ""
        return Extracted(short, False, short)
    whole = "\n".join(lines[first:]) if first else text
    return Extracted(_clean(_span(_BULLET.sub("", lines[first]))), False, _BULLET.sub("", whole).strip())


def filled(text: str) -> str:
    """The text without answer forms that hold nothing, or the prompt's own "your answer": a box, a tag, a JSON
    field, bold marks, an "Answer:" with nothing after it. An empty form is no answer, and takes none away."""
    given, text = text, text.replace("\0", "")

    def kept(form: re.Match[str]) -> str:
        inner = _clean(form[form.lastindex]) if form.lastindex else ""
        return form[0] if inner and not _PLACEHOLDER.match(inner) else "\0"

    for _ in range(4):  # one inside another
        before = text
        for form in (_BOXED, _TAG, _HOLLOW):
            text = form.sub(kept, text)
        if text == before:
            break
        text = _SAID_OF_NOTHING.sub("", re.sub(r"\$\0\$", "\0", text)).replace("\0", "")
    if len(text) == len(given) - given.count("\0"):  # nothing was taken out
        text = given
    marks = [mark for mark in _MARKER.finditer(text) if any(colon in mark[0] for colon in _COLONS)]
    while marks and not text[marks[-1].end() :].strip(_PUNCTUATION + "\n\r\t"):
        text = text[: marks.pop().start()]
    return text


def _marks(text: str) -> list[tuple[int, str]]:
    """(end, kind) of each formal marker in order; a key of JSON is read as JSON."""
    found = [(m.end(), "marker") for m in _MARKER.finditer(text)] + [
        (m.end(), "key") for m in _KEY.finditer(text)
    ]
    return sorted(found)


def _value(text: str, start: int) -> str:
    """The JSON value that begins at `start`, as text; what is no JSON is read up to the end of its line."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text[start : start + 100_000])
    except ValueError:
        rest = text[start:].split("\n", 1)[0].strip()
        quote = rest[:1] if rest[:1] in "\"'" else ""
        return _clean(rest[1:].split(quote, 1)[0] if quote else re.split(r"[,}\]]", rest, maxsplit=1)[0])
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))  # {"answer": {"text": X}}
    if isinstance(value, list):
        value = ", ".join(str(v) for v in value)
    return "" if value is None or isinstance(value, dict) else _clean(str(value))


def _says_something(line: str) -> bool:
    marker = _MARKER.match(line.strip())
    if marker and _PLACEHOLDER.match(_clean(line.strip()[marker.end() :])):
        return False
    return bool(line.strip()) and _EMPTY.fullmatch(line) is None


def _span(rest: str) -> str:
    """From the marker to the end of the answer: its line (the next one when this is empty), its first
    sentence."""
    rest = rest.lstrip(" \t:：")
    if not rest.split("\n", 1)[0].strip(" *_`:："):
        rest = (
            _BULLET.sub("", rest.lstrip("\n *_`:："))
            if not rest.lstrip("\n *_`:：")[:1].isdigit()
            else rest.lstrip("\n *_`:：")
        )
        fence = re.match(r"(?:json|text|markdown)?\n", rest)
        rest = rest[fence.end() :] if fence else rest
    if tag := _TAG.match(rest):
        rest = tag[2].strip()
    if docs := re.match(r"(?:\s*\[\s*DOC[^\]]{0,80}\][\s,;:]*){1,99}(?=\S)", rest, re.I):
        rest = rest[docs.end() :]
    cut = _NEXT_FIELD.search(rest)
    line = (rest[: cut.start()] if cut else rest).split("\n", 1)[0]
    box = _BOXED.search(line)
    if box:
        return box[1]
    for end in islice(_SENTENCE_END.finditer(line), _MARKS):
        # Bounded looks, since a line may have ten million signs.
        head, tail = line[max(0, end.start() - 39) : end.start() + 1], line[end.end() : end.end() + 2_000]
        # "St. Louis", "Mamma Mia! Here We Go Again", "1. FC Köln": a name goes on. A sentence follows when it
        # has a verb.
        if _NUMBERED.match(head) or (end[0][0] == "." and _ABBREVIATION.search(head)):
            continue
        following = _DASH.split(_SENTENCE_END.split(tail, maxsplit=1)[0], maxsplit=1)[0]
        comment = end[0][0] != "." and re.match(
            r"\s*[\"“(]*(?:An?|The)\s+[a-z]", tail
        )  # "... Rabbit? A film"
        if comment or _LABEL.match(tail) or (len(following.split()) > 2 and _VERB.search(following)):
            return line[: end.end()]
    return line


def _clean(answer: str) -> str:
    """Without markup, wrapping quotes or brackets, `[DOC i]` around it, and the final sentence period; inner
    dots stay."""
    answer = _LATEX.sub(r"\1", re.sub(r"\*\*|__|`", "", answer)).strip().strip("*_ ")
    answer = _DOCS.sub("", answer)
    for _ in range(4):
        before = answer
        answer = answer.strip().rstrip(",;:").strip()
        if answer.endswith(".") and not _ends_in_abbreviation(answer):
            answer = answer[:-1].rstrip()
        if len(answer) > 1 and _QUOTES.get(answer[0]) == answer[-1]:
            answer = answer[1:-1]
        if (
            len(answer) > 1
            and (answer[0], answer[-1]) in (("(", ")"), ("[", "]"), ("<", ">"))
            and answer[1:-1].isascii()
        ):
            inner = answer[1:-1]
            answer = inner if not any(c in inner for c in "()[]<>") else answer
        if answer == before:
            break
    return answer if answer.strip(_PUNCTUATION) else ""


def _ends_in_abbreviation(answer: str) -> bool:
    """True when the last dot belongs to the answer: "Apple Inc.", "Washington D.C.", "J. F. K."."""
    return bool(_ABBREVIATION.search(answer))
