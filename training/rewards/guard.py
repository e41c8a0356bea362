"""Whether an answer names the gold answer and nothing else: decided by what it names, not by how it is
joined.

An answer without its markup and citations is the gold answer and a rest. The rest may hold words that name
nothing (`words.FUNCTION`, `words.CITING`), ordinary words of the question, the place a place lies in, what
stands beside the gold in one passage ("Greenwich Village" in "the Greenwich Village area"), and a few small
words more. A name, a number or an option of the question that is not the gold is another candidate, and a
list of candidates is no answer. So no text earns anything under two different golds, which is what makes
guessing by list worthless.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from icr_tasks.metrics.answers import normalize

from .words import (
    ARTICLES,
    CITING,
    COUNTRIES,
    FUNCTION,
    NATIONALITIES,
    NEGATION,
    NO_LIKE,
    NUMBERS,
    STATES,
    UNIONS,
    YES_LIKE,
    YES_NO,
)

BESIDE = 3  # words of one passage that may stand beside the gold in one run with it
_BARE = 8  # a line or sentence of up to so many words after the answer may be one more candidate

_NUMBERED = r"#?\d{1,3}"
_CITATION = re.compile(
    rf"\[\s*(?:(?:DOC|Document|Passage|Source)s?\s*)?{_NUMBERED}(?:\s*(?:,|;|&|and|-)\s*(?:DOC\s*)?{_NUMBERED})*\s*\]"
    rf"|\b(?:DOC|Documents?|Passages?|Sources?)\s+{_NUMBERED}\b(?:\s*(?:,|&|and)\s*(?:DOC\s+)?{_NUMBERED}\b)*",
    re.I,
)
_FOOTNOTE = re.compile(
    rf"<sup>\s*\[?\s*{_NUMBERED}(?:\s*,\s*{_NUMBERED})*\s*\]?\s*</sup>|\[\^{_NUMBERED}\]", re.I
)
_TAG = re.compile(r"</?(?:b|i|em|strong|u|code|p|br|sup|sub|span|answer|ans)\s*/?>", re.I)
_LATEX = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|emph|underline|operatorname)\s*\{([^{}]*)\}"
)
_VERDICT = re.compile(r"\\boxed\s*\{\s*Criterion[^{}]*\}", re.I)  # votes for a judge name no answer
_DOLLAR = re.compile(r"\$(?!\s?\d)|(?<=[\w}])\$|\\[()\[\]]|\\[,;! ]")
_VERBS = frozenset(
    [
        "is",
        "was",
        "were",
        "are",
        "has",
        "had",
        "have",
        "did",
        "does",
        "came",
        "been",
        "born",
        "died",
        "directed",
        "released",
        "says",
        "states",
        "played",
        "won",
        "lived",
        "served",
        "because",
        "according",
        "which",
        "that",
        "where",
        "when",
        "whose",
        "explanation",
        "reason",
        "note",
        "confidence",
        "source",
        "sources",
    ]
)
_FIELD = re.compile(
    r"(?im)^\W*(?:explanation|reason(?:ing)?|justification|note|source|confidence|relevant doc\w*|evidence|quote \d+|\[DOC)\b"
)


def plain(text: str) -> str:
    """Without LaTeX, HTML marks, emphasis and citations; line breaks stay."""
    for _ in range(2):
        text = _LATEX.sub(r"\1", text)
    text = _TAG.sub(" ", _FOOTNOTE.sub(" ", _DOLLAR.sub("", _VERDICT.sub(" ", text))))
    return re.sub(r"\(\s*\)|\[\s*\]", " ", _CITATION.sub(" ", text.replace("**", "").replace("__", "")))


@dataclass(frozen=True)
class Word:
    """A word: `norm` as answers are compared, `name` where it is written as a name or number."""

    norm: str
    name: bool


@lru_cache(maxsize=4096)
def words(text: str) -> tuple[Word, ...]:
    """The words of a text as `normalize` sees them, but for articles, which stay only where there is nothing
    else."""
    found = []
    for part in text.split():
        name = any(c.isupper() or c.isdigit() for c in part)
        found += [Word(w, name) for w in re.findall(r"\w+", normalize(part))]
    return tuple(w for w in found if w.norm not in ARTICLES) or tuple(found)


def _places(found: Sequence[Word], part: Sequence[Word]) -> list[int]:
    """Where `part` starts in `found`."""
    sought, n = [w.norm for w in part], len(part)
    norms = [w.norm for w in found]
    return [i for i in range(len(norms) - n + 1) if norms[i : i + n] == sought] if n else []


@dataclass(frozen=True)
class Asked:
    """What the question names: ordinary words, names, and what it offers to choose from: `options` ("A or B"),
    `sides` (also "between A and B"), each the words of one. `cased`: whether a capital tells its names."""

    common: frozenset[str]
    names: frozenset[str]
    cased: bool
    options: tuple[frozenset[str], ...]
    sides: tuple[frozenset[str], ...]


@lru_cache(maxsize=4096)
def asked(question: str) -> Asked:
    """The question's words; where it has no capitals at all, none of its words is known to be a name, but for
    its numbers."""
    found = words(question)
    names = {w.norm for i, w in enumerate(found) if w.name and (i or w.norm not in FUNCTION)}
    cased = any(c.isupper() for i, w in enumerate(question.split()) if i or not _function(w) for c in w)
    common = {w.norm for w in found if not w.name}
    options = _joined(r"(?i)\s(?:or|versus|vs\.?)\s", question, end="[?;]")
    sides = options + _joined(r"(?i)\s(?:and|&)\s", question, end="[,?;]")
    return Asked(frozenset(common), frozenset(names - common), cased, tuple(options), tuple(sides))


def _function(word: str) -> bool:
    return all(w.norm in FUNCTION for w in words(word))


_CLAUSE = r"|(?i:\s(?:who|whom|whose|which|what|when|where|how|is|are|was|were|did|does|do|has|had|have)\b)"


def _joined(conjunction: str, question: str, end: str) -> list[frozenset[str]]:
    """The words of each clause that stands beside a conjunction."""
    out = []
    for match in re.finditer(conjunction, question):
        before = re.split(r"[,:;?]", question[: match.start()])
        # "A, B or C": the parts before belong to the list as well; the first part is the question itself.
        listed = before[1:] if len(before) > 1 else before
        parts = [*listed, re.split(end + _CLAUSE, question[match.end() :])[0]]
        out += [frozenset(w.norm for w in words(part)) for part in parts if part.strip()]
    return out


def _others(sides: Sequence[frozenset[str]], gold: Sequence[Word]) -> frozenset[str]:
    """The words of the sides that are not the gold's own; the gold belongs to the smallest one that holds
    most of it."""
    sought = {w.norm for w in gold}
    if not any(sought & side for side in sides):
        return frozenset()
    own = min(sides, key=lambda side: (-len(sought & side), len(side)))
    return frozenset().union(*sides) - own | {w for side in sides for w in side if w in sought}


def names_only(
    answer: str, tail: str, golds: Sequence[str], question: str, sources: Sequence[str], spare: int
) -> bool:
    """Whether the answer names a gold and no other candidate.

    `tail` is what follows the answer in the completion, `sources` are passages that may vouch for words
    beside the gold, `spare` is how many small words more the answer may have.
    """
    found = words(plain(answer))
    known = sorted((words(g) for g in golds if g.strip()), key=len, reverse=True)
    if any(len(g) == 1 and g[0].norm in YES_NO for g in known):
        return _yes_no(found, {g[0].norm for g in known if len(g) == 1}, asked(question), spare)
    spots = {i: g for g in reversed(known) for i in _places(found, g)}
    if not spots:
        return False
    taken = {j for i, g in spots.items() for j in range(i, i + len(g))}
    rest = [i for i in range(len(found)) if i not in taken]
    gold = max(spots.values(), key=len)
    if not _rest_is_small(found, rest, min(taken), max(taken), gold, asked(question), sources, spare):
        return False
    return not _more(tail, gold, golds)


def _rest_is_small(
    found: Sequence[Word],
    rest: list[int],
    first: int,
    last: int,
    gold: Sequence[Word],
    question: Asked,
    sources: Sequence[str],
    spare: int,
) -> bool:
    key = "_".join(w.norm for w in gold)
    alone = key in NATIONALITIES or key in COUNTRIES or all(w.norm in YES_LIKE | NO_LIKE for w in gold)
    in_question = all(w.norm in question.names | question.common for w in gold)
    offered = _others(question.sides if in_question else question.options, gold)
    places = _containers(found, last, key)
    written = any(w.name for w in found[first : last + 1]) or not any(w.name for w in gold)
    proper = any(w.name for w in gold) and written and not alone
    # Where nothing is known to be a name, the question said over again names all that it asks about.
    lower = in_question and not question.cased
    said = {w.norm for w in found}
    if lower and len(rest) > 1 and (question.common | question.names) - FUNCTION <= said:
        return False
    small, foreign = 0, []
    for i in rest:
        word = found[i]
        if word.norm in NEGATION or word.norm in YES_NO:
            return False
        if word.name and word.norm in offered:
            return False  # also "It" and "Her", where they are the options
        if word.norm in FUNCTION or word.norm in CITING or i in places or _initials(word.norm, gold):
            continue
        if word.norm in NUMBERS and not word.name and i + 1 < len(found) and found[i + 1].norm in CITING:
            continue  # "in the second passage"
        if word.norm in offered or (in_question and not word.name and word.norm in question.names):
            return False
        if word.norm in question.common and not word.name:
            small += lower
            continue
        if proper and not word.name and word.norm not in question.names | NUMBERS and word.norm.isalpha():
            small += 1
        else:
            foreign.append(i)
    if small > spare:
        return False
    return not foreign or (not alone and _vouched(found, first, last, foreign, question, gold, sources))


def _containers(found: Sequence[Word], last: int, key: str) -> set[int]:
    """Positions, directly after the gold, of the state and the country that a place lies in."""
    out: set[int] = set()
    if key in COUNTRIES - STATES or key in NATIONALITIES:
        return out
    steps = [UNIONS] if key in STATES else [STATES, COUNTRIES]
    at = last + 1
    for known in steps:
        for n in (4, 3, 2, 1):
            if at + n <= len(found) and "_".join(w.norm for w in found[at : at + n]) in known:
                out |= set(range(at, at + n))
                at += n
                break
    return out


def _initials(word: str, gold: Sequence[Word]) -> bool:
    """Whether the word is the gold's own abbreviation, "WHO"."""
    return len(gold) > 1 and word == "".join(w.norm[0] for w in gold if w.norm not in FUNCTION)


def _vouched(
    found: Sequence[Word],
    first: int,
    last: int,
    foreign: list[int],
    question: Asked,
    gold: Sequence[Word],
    sources: Sequence[str],
) -> bool:
    """Whether a passage holds gold and foreign words in one run, without a comma or "and" between them."""
    if any(first < i < last for i in foreign):
        return False  # the gold twice, and something between
    low, high = min(first, foreign[0]), max(last, foreign[-1])
    run = list(found[low : high + 1])
    beside = [w for w in run[: first - low] + run[last - low + 1 :] if w.norm not in FUNCTION]
    if len(beside) > BESIDE or any(w.norm in question.names for w in beside):
        return False
    if not any(w.name for w in gold) and any(w.name for w in beside):
        return False  # "American politician" answers two questions
    if any(w.norm in ("and", "or", "plus", "versus", "vs") for w in run):
        return False
    if all(w.norm.isdigit() for w in gold) and any(w.norm.isdigit() and len(w.norm) == 4 for w in beside):
        return False
    rare = max(beside, key=lambda w: len(w.norm)).norm
    return any(_places(part, run) for text in sources if rare in text.lower() for part in _parts(text))


@lru_cache(maxsize=4096)
def _parts(text: str) -> tuple[tuple[Word, ...], ...]:
    """The words of a passage, cut where punctuation separates."""
    return tuple(words(part) for part in re.split(r"[,;:()\[\]|/\n]|[.!?]\s", text) if part.strip())


def _more(tail: str, gold: Sequence[Word], golds: Sequence[str]) -> bool:
    """Whether a line or sentence after the answer is one more candidate: short, and no sentence of its
    own."""
    field = _FIELD.search(tail)
    rest = plain(tail[: field.start()] if field else tail)
    accepted = [words(g) for g in golds]
    for part in re.split(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+|(?<=[.!?;])\s", rest):
        said = words(part)
        said = tuple(w for w in said if w.norm not in CITING)
        if not said or len(said) > _BARE or any(w.norm in _VERBS for w in said):
            continue
        if any(_places(said, g) for g in accepted) and len(said) <= len(gold) + 1:
            continue  # the answer once more
        if any(w.norm not in FUNCTION for w in said):
            return True
    return False


def _yes_no(found: Sequence[Word], golds: set[str], question: Asked, spare: int) -> bool:
    """yes or no said first, its opposite not at all, and nothing named that the question does not name."""
    start = next((i for i, w in enumerate(found) if w.norm not in FUNCTION), len(found))
    found = found[start:]  # "It is yes"
    if not found or found[0].norm not in golds:
        return False
    said = found[0].norm
    against = NO_LIKE | NEGATION if said == "yes" else YES_LIKE
    rest = found[1:]
    if any(w.norm in against for w in rest):
        return False
    known = question.common | question.names | FUNCTION | CITING | NEGATION
    other = [w for w in rest if w.norm not in known]
    return len(other) <= spare and not any(w.name or w.norm in NUMBERS for w in other)
