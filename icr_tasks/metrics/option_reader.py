"""Which option an answer picks: by letter, by marker, by the text of one option. Nothing is guessed.

    pick("I think **Option B** fits best.", ["The Moon", "Mars", "Venus", "Pluto"])  ->  "B"

Two letters, a refusal, or no letter and no unique option text are no answer (None). Written for the prompts
of the paper ("The correct answer is (insert answer here)"); the official scorers stay in `choice.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from .extract import filled

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MARKERS, _SPAN = (
    200,
    4_000,
)  # how many markers and how far behind them one looks: a text may have ten million signs
_MARKUP = re.compile(
    r"\*\*|__|`+(?:json)?|\$|~~|^#{1,6}\s+|^>\s+|</?(?:b|i|u|em|strong|code|p|span|mark)>|^[→⇒➡✅✔☑✓👉•▶\ufe0f]+\s*"
    r"|\A\s*\d{1,2}[.)]\s+(?=[(\[]?[A-Z][)\]]?[.]?\s*\Z)",
    re.M,
)
_WIDE = str.maketrans("（）【】［］：", "()[][]:")
_LATEX = re.compile(r"\\(?:text(?:bf|rm|tt|it)?|mathrm|mathbf|textbf|fbox)\s*\{([^{}]*)\}")
_BOX = re.compile(
    r"\\boxed\s*\{([^{}]*)\}|<(?:answer|final_answer|choice|option)>(.*?)(?:</|\Z)", re.I | re.S
)
_QUALITY = r"(?:(?:final|correct|right|best|chosen|selected|most\s+\w+|my|likely)\s{1,8}){0,4}"
_NOUN = (
    r"(?:ans(?:wer)?(?:[\s_]?(?:choice|option|letter))?|option|choice|selection|response|letter|pick|verdict"
    r"|respuesta|antwort|réponse|risposta|答案)"
)
_BE = r"(?:is|was|are|would\s+be|should\s+be|must\s+be|will\s+be|has\s+to\s+be|seems\s+to\s+be|appears\s+to\s+be)\b|['’]s\b|是"
# What may stand before a lone letter, and only then: "It's B.", "that leaves (C)", "only D fits", "not A but B".
_BARE = (
    r"\b(?:it(?:['’]s|\s+(?:is|must\s+be|has\s+to\s+be))|(?:that|this|which)\s+leaves(?:\s+us\s+with|\s+only)?|therefore,?|so,?"
    r"|thus,?|hence,?)[^\S\n]+(?=(?-i:[(\[]?[A-Z][)\]]?)(?:[.,;!]|\s*$))"
    r"|\b(?:only|options?,|choices?,)\s+(?=(?-i:[(\[]?[A-Z][)\]]?)\s+(?:is|fits|matches|works|holds|remains|seems|appears)\b)"
    r"|\bnot\s+(?:option\s+)?(?-i:[(\[]?[A-Z][)\]]?)\s*,?\s*but\s+(?:rather\s+)?(?=(?-i:(?:option\s+)?[(\[]?[A-Z]\b))"
)
_PICK = (
    r"\bI(?:'d|’d|'ll|’ll)?\s+(?:would\s+|will\s+|have\s+to\s+|must\s+)?(?:choose|chose|pick|picked|select|selected|go\s+with"
    r"|opt\s+for|answer\s+with|vote\s+for|say)\b"
)
_MARKER = re.compile(
    rf"(?:(?<![^\W_]){_QUALITY}{_NOUN}(?:\s+(?:to|for|of)\s+(?:the|this|that|your)\s+\w+(?:\s+\w+)?)?[\"']?\s*"
    rf"(?:(?:{_BE}|=)(?:\s+(?:as\s+follows|therefore|thus|clearly|definitely|most\s+likely|likely|probably|simply))?\s*:?"
    rf"|:|\s?(?:->|→|=>)|\s[–—-]\s)|{_PICK}\s*:?|{_BARE})",
    re.I | re.M,
)
_NOT = re.compile(
    r"\s*(?:(?:definitely|clearly|certainly)\s+)?(?:not|n't|neither|none\b|wrong|incorrect|unlikely)", re.I
)
_BUT = re.compile(
    r"\b(?:but|rather|instead)\b\s*(?:it\s+is\s+|it's\s+|is\s+)?(?:rather\s+|in\s+fact\s+)?", re.I
)
_SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“(]*[A-Z])|\n\s*\n|\n(?=\s*\S)")
_JOIN = r"\s*(?:,\s*(?:and|or)\s+|,|/|&|\+|\band\b|\bor\b|\bas\s+well\s+as\b)\s*(?:both\s+)?"
_REFUSAL = re.compile(
    r"\b(?:can(?:not|'t|’t)|could\s*n[o'’]t|unable|not\s+able|impossible|insufficient|not\s+enough|no\s+(?:clear\s+)?information"
    r"|do(?:es)?\s*n[o'’]t\s+(?:know|say|mention|specify|provide|contain|state)|do(?:es)?\s+not\s+(?:know|say|mention|specify"
    r"|provide|contain|state)|not\s+(?:mentioned|specified|stated|provided|clear|possible)|none\s+of\s+the\s+(?:above|options)"
    r"|all\s+of\s+the\s+above|I'm\s+sorry|I\s+am\s+sorry|as\s+an\s+AI)\b",
    re.I,
)
_TURN = re.compile(r"\n[^\S\n]*(?:Question|Human|User|Q|Answer the)[ \t]{0,4}\d{0,4}[ \t]{0,4}:", re.I)
_SALUTATION = re.compile(r"^[^\w\n]*Dear\b[^\n]{0,60},?\s*$", re.M)
_SKIP = re.compile(
    r"[\s:=\"'“‘*_>\-–—]*(?:(?:the|is|that|therefore|option|choice|letter|answer|number|labell?ed|following|most\s+likely)\b"
    r"[\s:\"'“‘*]*)*",
    re.I,
)


def pick(text: str, options: Sequence[str]) -> str | None:
    """The letter of the option that a visible answer picks, None for no readable answer. `options` in their
    order."""
    n = len(options)
    if not n:
        return None
    known = [_plain(option) for option in options]
    body = _LATEX.sub(r"\1", filled(text).translate(_WIDE))
    boxes = [inner for pair in _BOX.findall(body) for inner in pair if inner.strip()]
    body = _MARKUP.sub("", body).strip()
    if turn := _TURN.search(body):
        body = body[: turn.start()].strip()
    for span in (*reversed(boxes), *_spans(_BOX.sub(" ", body))):
        found = _resolve(_MARKUP.sub("", span), known)
        if found is not None:
            return found or None
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    if not lines:
        return None
    start, end = _resolve(body, known, leading=True), _resolve(lines[-1], known, alone=True)
    listed = re.findall(rf"^[ \t]*[(\[]?([{LETTERS[:n]}])[)\].:]+[ \t]+\S", body, re.M)
    told = len(set(listed)) > 1  # options are gone through one by one: the last line decides
    for found in (end, start) if told else (start, end):
        if found is not None:
            return found or None
    if _REFUSAL.search(body):
        return None
    named = _letters_named(body, n)
    texts = _texts_named(_SALUTATION.sub("", body), known)
    if len(named) == 1 and texts in ([], named):
        return named[0]
    return texts[0] if len(texts) == 1 and not set(named) - set(texts) else None


def _spans(body: str) -> Iterator[str]:
    """What follows each marker up to the end of its sentence, the last marker first."""
    for match in reversed(list(_MARKER.finditer(body))[-_MARKERS:]):
        rest = body[match.end() : match.end() + _SPAN].lstrip(" \t:*\"'“")
        if not rest.split("\n", 1)[0].strip():
            rest = rest.lstrip()
        if _NOT.match(rest):
            turn = _BUT.search(rest.split("\n", 1)[0])
            if turn is None:
                continue
            rest = rest[turn.end() :]
        yield rest


def _resolve(span: str, known: Sequence[str], *, alone: bool = False, leading: bool = False) -> str | None:
    """A letter; "" for an answer that names two; None where the span names no option.

    `alone`: the line must hold a letter and nothing else. `leading`: the text begins with the letter.
    """
    letters = LETTERS[: len(known)]
    if _plain(span) in known and known.count(_plain(span)) == 1:
        return letters[known.index(_plain(span))]
    skip = _SKIP.match(span)
    rest = span[skip.end() if skip else 0 :]
    head = re.match(rf"[(\[{{<\"']*\s*([{letters}{letters.lower()}])(?:\s*[)\]}}>]+)?", rest)
    closed = head is not None and re.search(r"[)\]}>]", head[0]) is not None
    after = rest[head.end() :] if head else ""
    after = re.sub(r"^[\"'”’]+", "", after)
    if head is None or re.match(r"[\w'’-]", after) and not closed:
        return None if alone or leading else _by_text(span, known)
    letter = head[1].upper()
    if alone:
        return letter if not after.strip(" .!)]*\"'”’") else None
    more = re.match(
        rf"{_JOIN}(?:option\s+)?[(\[]?([{letters}])[)\]]?(?=$|[\s.,;:!?)])(?!\s+[a-z])", after, re.I
    )
    if more and more[1].upper() != letter and (more[1].isupper() or not closed):
        return ""
    listed = {
        m.upper() for m in re.findall(rf"^[^\S\n]*[(\[]?([{letters}])[)\].:]\s+\S", "\n" + after, re.M)
    } - {letter}
    if leading and listed and len(listed) + 1 >= len(known) - 1:
        return ""  # all options told again, none picked
    own, said = known[letters.index(letter)], _plain(after)
    if own and said.startswith(own):
        return letter
    others = [k for k in known if k and k != own and _begins(said, k)]
    if others and re.match(r"\s*[.):,\-–—]?\s*\S", after):
        return ""
    bare = not closed and re.match(r"[^\S\n]+\w", after) is not None
    if bare and (head[1] in "aAI" or head[1].islower() or leading):
        # "A man", "a village": an article, unless a reason or the option's own text follows.
        if re.match(
            r"\s+(?:because|since|as|for|which|due|based|according|given|rather\s+than|instead\s+of|it\s+is"
            r"|is|fits|matches|works|holds|remains|seems|appears)\b",
            after,
            re.I,
        ):
            return letter
        if head[1] in "aAI" or head[1].islower() or not re.match(r"\s+[A-Z\"“(]", after):
            return None if leading else _by_text(span, known)
    return letter


def _by_text(span: str, known: Sequence[str]) -> str | None:
    """The one option that the first sentence of the span names by its text."""
    first = _SENTENCE.split(span.strip(), maxsplit=1)[0]
    if _REFUSAL.search(first):
        return ""
    found = _texts_named(first, known) or _texts_named(span[: len(first) + 400].split("\n")[0], known)
    letters = _letters_named(first, len(known))
    if len(letters) == 1 and (not found or found == letters):
        return letters[0]
    return found[0] if len(found) == 1 and not letters else "" if len(found) > 1 or len(letters) > 1 else None


def _letters_named(text: str, n: int) -> list[str]:
    """Letters in brackets or after "option" in order, each once."""
    forms = rf"[(\[]([{LETTERS[:n]}])[)\]]|\b(?:option|choice|answer|letter)\s+[(\[\"'“]?([{LETTERS[:n]}])\b"
    found = re.findall(forms, text) + [
        (m, "") for m in re.findall(rf"^[^\S\n]*([{LETTERS[:n]}])[.):]\s", text, re.M)
    ]
    return list(dict.fromkeys(a or b for a, b in found))


def _texts_named(text: str, known: Sequence[str]) -> list[str]:
    """Options whose text stands in the text at word bounds; a text inside a longer option's does not
    count."""
    said, found = f" {_plain(text)} ", []
    for k in sorted(set(known), key=len, reverse=True):
        if k and known.count(k) == 1 and f" {k} " in said:
            found.append(LETTERS[known.index(k)])
            said = said.replace(f" {k} ", " \0 ")
    return sorted(found)


def _begins(said: str, option: str) -> bool:
    return said == option or said.startswith(option + " ")


def _plain(text: str) -> str:
    """Lower case, accents folded, punctuation to space, white space squeezed."""
    folded = unicodedata.normalize("NFKD", text)
    folded = "".join(c for c in folded if not unicodedata.combining(c)).lower()
    return " ".join(re.sub(r"[^\w\0]+", " ", folded).split())
