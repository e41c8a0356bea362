"""How alike two passages are: the definitions, one pair at a time. `fuzzy` computes the same numbers for whole rows.

All work on lower-cased text, all return 0-1, and 0 where a side has nothing to compare.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

_WORD = re.compile(r"\w+")


def squeeze(text: str) -> str:
    """Lower case, runs of white space as one space."""
    return " ".join(text.lower().split())


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, lower-cased."""
    return _WORD.findall(text.lower())


def word_jaccard(a: str, b: str) -> float:
    """Shared words over all words (sets)."""
    one, two = set(words(a)), set(words(b))
    return len(one & two) / len(one | two) if one and two else 0.0


def char_f1(a: str, b: str) -> float:
    """F1 of the two multisets of characters. Any two English passages share most of theirs."""
    a, b = squeeze(a), squeeze(b)
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b)) if a and b else 0.0


def _characters(text: str) -> set[str]:
    text = squeeze(text)
    return {text[i : i + 3] for i in range(len(text) - 2)}


def trigram_jaccard(a: str, b: str) -> float:
    """Shared character trigrams over all of them (sets)."""
    one, two = _characters(a), _characters(b)
    return len(one & two) / len(one | two) if one and two else 0.0


def _triples(text: str) -> set[tuple[str, ...]]:
    run = words(text)
    return set(zip(run, run[1:], run[2:], strict=False))


def containment(a: str, b: str) -> float:
    """Shared word trigrams over the smaller side's: high when one passage holds the other, or a good part of it."""
    one, two = _triples(a), _triples(b)
    return len(one & two) / min(len(one), len(two)) if one and two else 0.0


SIGNALS: dict[str, Callable[[str, str], float]] = {
    "word_jaccard": word_jaccard,
    "char_f1": char_f1,
    "trigram_jaccard": trigram_jaccard,
    "containment": containment,
}
PAPER = ("word_jaccard", "char_f1", "trigram_jaccard")  # appendix A: Jaccard, character F1, n-gram; any of them


def released_mix(a: str, b: str) -> float:
    """The released code's score: 0.4 token_sort + 0.3 partial + 0.3 token_set ratio of rapidfuzz, lower-cased."""
    from rapidfuzz import fuzz

    a, b = a.lower(), b.lower()
    return (0.4 * fuzz.token_sort_ratio(a, b) + 0.3 * fuzz.partial_ratio(a, b) + 0.3 * fuzz.token_set_ratio(a, b)) / 100
