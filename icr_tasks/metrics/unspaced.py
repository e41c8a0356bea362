"""Scripts written without blanks between words: each of their characters is read as a word."""

from __future__ import annotations

import re

# Han with its extensions, Kana, Thai, Lao, Khmer, Myanmar.
CHARACTER = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)


def spaced(text: str) -> str:
    """Their characters as words that every tokenizer keeps and no stemmer touches; other texts as they are.

    >>> spaced("Im Jahr 二〇")
    'Im Jahr  u20108  u12295 '
    """
    return CHARACTER.sub(lambda found: f" u{ord(found[0])} ", text)


def spread(text: str) -> str:
    """`spaced` with one blank between words: what holds a phrase between blanks holds it in such scripts too.

    >>> spread("a 二〇")
    'a u20108 u12295'
    """
    return " ".join(spaced(text).split())
