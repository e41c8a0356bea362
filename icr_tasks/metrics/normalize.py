"""Text normalisation before answers are compared."""

from __future__ import annotations

import re
import string
import unicodedata

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_official(text: str) -> str:
    """HELMET utils.py (SQuAD's rule): lower, drop ASCII punctuation, drop a/an/the, squeeze white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def normalize(text: str) -> str:
    """The official rule on text whose accents, width variants, dashes and typographic quotes are folded first.

    "Röntgen" = "Rontgen", "São Tomé" = "Sao Tome", "don’t" = "dont". A text of punctuation or articles alone keeps its lower-cased
    words ("The The", "!!!" -> "the the", "!!!") instead of becoming the empty string that every answer contains.
    """
    folded = unicodedata.normalize("NFKD", text)
    folded = "".join(c for c in folded if not unicodedata.combining(c)).translate(_FOLD)
    return normalize_official(folded) or " ".join(folded.lower().split())


_FOLD = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe"})  # fmt: skip
