"""`subem_norm`: SubEM on words, after dates, numbers, plurals and spellings are brought to one form.

The rules were kept only where they help on human labels (docs/metrics.md has the table). A gold is found when
its words stand in the answer in a row (dates: in any order), so "3" is not in "13" and "8%" not in "6.8%".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from .dates import Date, date_of, dates_in
from .names import is_person, names, without_title
from .negation import affirmed
from .words import articles_only, says_article, tokens

_HEDGE = re.compile(
    r"\A\s*(?:(?:in|on|at|by|from|of|to|during|about|around|approximately|approx\.?|roughly|circa|ca?\.|nearly|almost"
    r"|between)\s+)+",
    re.I,
)
_ASIDE = re.compile(r"\s*\([^()]*\)")


@lru_cache(maxsize=50_000)
def _forms(gold: str) -> tuple[tuple[str, ...], ...]:
    """The gold's words; also without a leading preposition or hedge, an aside in brackets, a title."""
    found = [gold, _HEDGE.sub("", gold), _ASIDE.sub("", gold)]
    inside = re.search(r"\(([A-Z][A-Za-z.&-]{1,9})\)\s*\Z", gold)
    if inside and sum(letter.isupper() for letter in inside[1]) > 1:
        found.append(
            inside[1]
        )  # an abbreviation, "adenosine diphosphate (ADP)", not the state in "Cleveland (Ohio)"
    found.append(without_title(gold))
    return tuple(dict.fromkeys(words for form in found if (words := tuple(tokens(form)))))


@lru_cache(maxsize=50_000)
def _person(gold: str) -> tuple[str, ...]:
    """The words of a person's name, nothing for another gold."""
    plain = without_title(_ASIDE.sub("", gold))
    return tuple(tokens(plain)) if is_person(plain) else ()


def contains(words: Sequence[str], gold: Sequence[str]) -> bool:
    """Whether the words of the gold stand in a row."""
    n = len(gold)
    first = gold[0]
    return any(
        words[i] == first and tuple(words[i : i + n]) == tuple(gold) for i in range(len(words) - n + 1)
    )


def _days(gold: str) -> set[Date]:
    """The days that a gold names in numbers; another day of their month is not one of them."""
    return {date for date in dates_in((), gold) if date[2] is not None}


def _day_known(month: Date, golds: Sequence[str]) -> bool:
    """Whether another gold gives the day in that month."""
    known = (date_of(form[0]) for gold in golds if (form := _forms(gold)))
    return any(d is not None and d[2] is not None and d[:2] == month[:2] for d in known)


_DENIES = re.compile(r"\b(?:no|not|never|none|neither|nor|cannot|unknown|without)\b|n['’]t\b", re.I)


def subem_norm(text: str, golds: Sequence[str]) -> float:
    """1 if the words of a gold stand in the text, in one form (dates: in any order); an empty gold never
    matches."""
    said, denied = affirmed(text), None
    words = tokens(said) if said.strip() else []
    dates: set[Date] | None = None
    for gold in golds:
        if articles_only(gold):  # "The The", "A": articles are dropped from everything else
            if says_article(said, gold):
                return 1.0
            continue
        forms = _forms(gold)
        if any(contains(words, form) for form in forms) or names(words, _person(gold)):
            return 1.0
        if _DENIES.search(gold) or affirmed(gold) != gold:  # "not guilty", "no": the denial is the answer
            denied = tokens(text) if denied is None else denied
            if any(contains(denied, form) for form in forms):
                return 1.0
        if not forms:
            continue
        if (date := date_of(forms[0])) is not None or (numeric := _days(gold)):
            dates = dates_in(words, said) if dates is None else dates
            if date is not None and date[2] is None and _day_known(date, golds):
                continue  # "January 2017" beside the gold "January 12, 2017": another day of that month is not it
            if (date in dates) if date is not None else bool(numeric & dates):
                return 1.0
    return 0.0
