"""Number words and ordinals as digits, in a row of lower-case words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_TO_NINETEEN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_FROM_TWENTY = "twenty thirty forty fifty sixty seventy eighty ninety"
# "second" is a unit of time too, and stays a word.
_TO_TWELFTH = "first - third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_ONES = _TO_NINETEEN.split()
_TENS = dict(zip(_FROM_TWENTY.split(), range(20, 100, 10), strict=True))
_NUMBER = {word: n for n, word in enumerate(_ONES)} | _TENS
_SCALE = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 10**9, "trillion": 10**12}
_ORDINAL = {word: n for n, word in enumerate(_TO_TWELFTH.split(), 1) if word != "-"}
_ORDINAL |= {f"{word}th": n for n, word in enumerate(_ONES) if n > 12}
_ORDINAL |= {word[:-1] + "ieth": n for word, n in _TENS.items()} | {"hundredth": 100, "thousandth": 1000}
# What a scale may follow. Of more digits a float knows only the first, and of 309 that it is infinite.
_DIGITS = re.compile(r"\d{1,15}(?:\.\d+)?")
_RANGE = frozenset(("to", "and", "through", "until"))


def as_digits(words: Sequence[str]) -> list[str]:
    """ "twenty-first" -> 21, "two hundred and five" -> 205, "3.5 million" -> 3500000, "nineteen eighty-four"
    -> 1984, "hundred" -> 100. Between the two ends of a range ("5 to 7", "between 1881 and 1885") nothing
    stays."""
    out: list[str] = []
    at = 0
    while at < len(words):
        value, end = _number(words, at)
        if end > at:
            out.append(f"{int(value)}" if value == int(value) else f"{value}")
            at = end
        else:
            out.append(str(_ORDINAL.get(words[at], words[at])))
            at += 1
    return list(_ranges(out))


def _number(words: Sequence[str], at: int) -> tuple[float, int]:
    """The number that begins at `at`, and where it ends; no number where it ends at `at`."""
    if _DIGITS.fullmatch(words[at]):
        if at + 1 == len(words) or words[at + 1] not in _SCALE:
            return 0.0, at
        total, current, end = 0.0, float(words[at]), at + 1
    else:
        total, current, end = 0.0, 0.0, at
    start, said = end, end > at  # said: something that a scale can multiply
    while end < len(words):
        word = words[end]
        if word in _NUMBER and _fits(current, _NUMBER[word], said and end > start):
            year = 10 < current < 21 and word in _TENS
            current = current * 100 + _NUMBER[word] if year else current + _NUMBER[word]
        elif (
            word in _ORDINAL
            and said
            and _fits(current, _ORDINAL[word], end > start)
            and not 10 < current < 20
        ):
            return total + current + _ORDINAL[word], end + 1
        elif word == "hundred" and (current < 100):
            current = max(current, 1.0) * 100
        elif word in _SCALE and word != "hundred" and (current or not total):
            total, current = total + max(current, 1.0) * _SCALE[word], 0.0
        elif word == "and" and end > at and (current or total) and current % 100 == 0:
            following = words[end + 1] if end + 1 < len(words) else ""
            if following not in _NUMBER and following not in _ORDINAL:
                break
            end += 1
            continue
        else:
            break
        said, end = True, end + 1
    return total + current, end


def _fits(current: float, value: int, going: bool) -> bool:
    """Whether a number word goes on with the number so far: "forty" + "two", "hundred" + "five", a year."""
    if not going:
        return current == 0
    if current % 100 == 0:
        return value < 100
    return (current % 10 == 0 and current % 100 >= 20 and value < 10) or (
        10 < current < 21 and 20 <= value < 100
    )


def _ranges(words: Sequence[str]) -> Iterator[str]:
    for n, word in enumerate(words):
        inside = 0 < n < len(words) - 1
        if not (inside and word in _RANGE and words[n - 1][0].isdigit() and words[n + 1][0].isdigit()):
            yield word
