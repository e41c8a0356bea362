"""`subem_norm`: SubEM on words, after dates, numbers, plurals and spellings are brought to one form.

The rules were kept only where they help on human labels (docs/metrics.md has the table). A gold is found when
its words stand in the answer in a row (dates: in any order), so "3" is not in "13" and "8%" not in "6.8%".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from .negation import affirmed

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTH = (
    {name: n for n, name in enumerate(_MONTHS, 1)}
    | {name[:3]: n for n, name in enumerate(_MONTHS, 1)}
    | {"sept": 9}
)
_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = dict(
    zip(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
        range(20, 100, 10),
        strict=True,
    )
)
_NUMBER = {word: n for n, word in enumerate(_UNITS)} | _TENS
_SCALE = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 10**9, "trillion": 10**12}
_ORDINAL = {
    **{
        w: n
        for n, w in enumerate(
            [
                "first",
                "second",
                "third",
                "fourth",
                "fifth",
                "sixth",
                "seventh",
                "eighth",
                "ninth",
                "tenth",
                "eleventh",
                "twelfth",
            ],
            1,
        )
    },
    **{
        w: n
        for n, w in enumerate(
            ["thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth"],
            13,
        )
    },
    **{word[:-1] + "ieth": n for word, n in _TENS.items()},
}
_FOLD = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "`": "'",
        "ʼ": "'",
        "–": "-",
        "—": "-",
        "−": "-",
        "‐": "-",
        "‑": "-",
        "ø": "o",
        "ł": "l",
        "ß": "ss",
        "æ": "ae",
        "œ": "oe",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "ı": "i",
    }
)
# British -> American, by ending and by word; never a word of its own in the other spelling.
_SPELLED = {
    "colour": "color",
    "favour": "favor",
    "honour": "honor",
    "labour": "labor",
    "harbour": "harbor",
    "neighbour": "neighbor",
    "centre": "center",
    "theatre": "theater",
    "metre": "meter",
    "litre": "liter",
    "kilometre": "kilometer",
    "fibre": "fiber",
    "defence": "defense",
    "offence": "offense",
    "licence": "license",
    "grey": "gray",
    "aluminium": "aluminum",
    "tyre": "tire",
    "programme": "program",
    "organisation": "organization",
    "civilisation": "civilization",
    "travelled": "traveled",
    "travelling": "traveling",
    "jewellery": "jewelry",
    "catalogue": "catalog",
    "dialogue": "dialog",
    "analyse": "analyze",
    "paediatric": "pediatric",
    "anaemia": "anemia",
    "oestrogen": "estrogen",
    "haemoglobin": "hemoglobin",
    "mould": "mold",
    "plough": "plow",
    "sulphur": "sulfur",
    "armour": "armor",
    "behaviour": "behavior",
    "flavour": "flavor",
    "rumour": "rumor",
    "vapour": "vapor",
    "tumour": "tumor",
    "saint": "st",
    "mount": "mt",
    "fort": "ft",
    "versus": "vs",
    "doctor": "dr",
    "mister": "mr",
    "junior": "jr",
    "senior": "sr",
    "percent": "%",
    "pct": "%",
    "okay": "ok",
}
_TOKEN = re.compile(
    r"\d+(?:st|nd|rd|th)\b|[$€£¥]?\d+(?:[,.]\d+)*[½¼¾⅓⅔]?|[^\W\d_]+(?:'[^\W\d_]+)*|\d+|%|&|[^\W_]", re.U
)
_DROP = frozenset(("a", "an", "the"))
_NO_PLURAL = frozenset(
    (
        "is",
        "was",
        "his",
        "this",
        "us",
        "as",
        "its",
        "has",
        "does",
        "yes",
        "gas",
        "bus",
        "plus",
        "thus",
        "news",
    )
)


def tokens(text: str) -> list[str]:
    """The words of a text in one form: numbers as digits, singular, accents and punctuation gone.

    Accents are folded, but no compatibility form: a unit sign does not become a word.
    """
    folded = unicodedata.normalize("NFD", text.translate(_FOLD))
    folded = "".join(c for c in folded if not unicodedata.combining(c)).lower().translate(_FOLD)
    folded = re.sub(r"\b(?:[a-z]\.){2,}", lambda m: m[0].replace(".", ""), folded)  # U.S., J.F.K.
    return _numbers([_word(t) for t in _TOKEN.findall(folded) if t not in _DROP] or folded.split())


def _word(token: str) -> str:
    if token[0].isdecimal() or token[0] in "$€£¥":
        plain = token.lstrip("$€£¥")
        if (ordinal := re.fullmatch(r"(\d+)(?:st|nd|rd|th)", plain)) is not None:
            return f"{int(ordinal[1])}"
        plain = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))", "", plain)
        plain = (
            re.sub(r"(\.\d*?)0+$", r"\1", plain).rstrip(".")
            if "." in plain and plain.count(".") == 1
            else plain
        )
        return plain.lstrip("0") or "0"
    if token == "&":
        return "and"
    token = re.sub(r"'s?$", "", token).replace("'", "")
    token = _SPELLED.get(token, token)
    if (
        len(token) > 3
        and token.endswith("s")
        and not token.endswith(("ss", "us", "is"))
        and token not in _NO_PLURAL
    ):
        if token.endswith("ies") and len(token) > 4:
            token = token[:-3] + "y"
        elif token.endswith(("ches", "shes", "xes", "sses", "zes")):
            token = token[:-2]
        else:
            token = token[:-1]
        token = _SPELLED.get(token, token)
    return token


def _numbers(words: Sequence[str]) -> list[str]:
    """Number words and ordinals as digits: "twenty-first" -> 21, "two hundred and five" -> 205, "3.5
    million"."""
    out: list[str] = []
    at = 0
    while at < len(words):
        total, current, end, any_word = 0.0, 0.0, at, False
        digits = re.fullmatch(r"\d+(?:\.\d+)?", words[at]) is not None
        while end < len(words):
            word = words[end]
            if (
                word in _NUMBER
                and not digits
                and (current % 100 == 0 or (current % 10 == 0 and current % 100 >= 20 and _NUMBER[word] < 10))
            ):
                current += _NUMBER[word]
            elif (
                word in _ORDINAL
                and not digits
                and any_word
                and (current % 100 == 0 or (current % 10 == 0 and _ORDINAL[word] < 10))
            ):
                current += _ORDINAL[word]
                end += 1
                any_word = True
                break
            elif word in _SCALE and (any_word or digits):
                if digits and not any_word and end == at + 1:
                    current = float(words[at])
                scale = _SCALE[word]
                if scale == 100:
                    current = max(current, 1) * 100
                else:
                    total, current = total + max(current, 1) * scale, 0.0
            elif (
                digits
                and end == at
                or (
                    word == "and"
                    and any_word
                    and end + 1 < len(words)
                    and words[end + 1] in _NUMBER
                    and current % 100 == 0
                    and current
                )
            ):
                pass
            else:
                break
            any_word = any_word or word in _NUMBER or word in _SCALE
            end += 1
        if any_word:
            value = total + current
            out.append(f"{int(value)}" if value == int(value) else f"{value}")
            at = end
        elif words[at] in _ORDINAL and words[at] != "second":
            out.append(str(_ORDINAL[words[at]]))
            at += 1
        else:
            out.append(words[at])
            at += 1
    return out


def _date(words: Sequence[str]) -> tuple[int | None, int | None, int | None] | None:
    """(year, month, day) where all words are a date with a month's name; None for anything else."""
    year = month = day = None
    for word in words:
        if word in _MONTH and month is None:
            month = _MONTH[word]
        elif word.isdecimal() and 1 <= int(word) <= 31 and day is None and len(word) <= 2:
            day = int(word)
        elif word.isdecimal() and len(word) in (3, 4) and year is None:
            year = int(word)
        elif word not in ("of", "on", "in", "ad", "ce"):
            return None
    return (year, month, day) if month is not None and (day is not None or year is not None) else None


_NUMERIC_DATE = re.compile(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})\b|\b(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})\b")


def _dates(words: Sequence[str], text: str) -> set[tuple[int | None, int | None, int | None]]:
    """All dates of a text: month names with the numbers around them, and numeric ones in both orders."""
    found: set[tuple[int | None, int | None, int | None]] = set()
    for at, word in enumerate(words):
        if word in _MONTH:
            for low in range(max(0, at - 3), at + 1):
                for high in range(at + 1, min(len(words), at + 4) + 1):
                    if (date := _date(words[low:high])) is not None:
                        found.add(date)
    for m in _NUMERIC_DATE.finditer(text):
        if m[1]:
            found.add((int(m[1]), int(m[2]), int(m[3])))
        else:
            found |= {(int(m[6]), int(m[4]), int(m[5])), (int(m[6]), int(m[5]), int(m[4]))}
    return found


_HEDGE = re.compile(
    r"\A\s*(?:(?:in|on|at|by|from|of|to|during|about|around|approximately|approx\.?|roughly|circa|ca?\.|nearly|almost)\s+)+",
    re.I,
)
_ASIDE = re.compile(r"\s*\([^()]*\)")


@lru_cache(maxsize=50_000)
def _forms(gold: str) -> tuple[tuple[str, ...], ...]:
    """The gold's words; also without a leading preposition or hedge, an aside in brackets, a middle initial
    or name."""
    found = [gold, _HEDGE.sub("", gold), _ASIDE.sub("", gold)]
    if inside := re.search(r"\(([A-Z][A-Za-z.&-]{1,9})\)\s*\Z", gold):
        found.append(inside[1])  # an abbreviation: "adenosine diphosphate (ADP)"
    if name := re.fullmatch(r"([A-Z][\w'’-]+) (?:[A-Z]\.? ){1,2}([A-Z][\w'’-]+)", gold.strip()):
        found.append(f"{name[1]} {name[2]}")
    return tuple(dict.fromkeys(words for form in found if (words := tuple(tokens(form)))))


def contains(words: Sequence[str], gold: Sequence[str]) -> bool:
    """Whether the words of the gold stand in a row."""
    n = len(gold)
    first = gold[0]
    return any(
        words[i] == first and tuple(words[i : i + n]) == tuple(gold) for i in range(len(words) - n + 1)
    )


_DENIES = re.compile(r"\b(?:no|not|never|none|neither|nor|cannot|unknown|without)\b|n['’]t\b", re.I)


def subem_norm(text: str, golds: Sequence[str]) -> float:
    """1 if the words of a gold stand in the text, in one form (dates: in any order); an empty gold never
    matches."""
    said, denied = affirmed(text), None
    words = tokens(said) if said.strip() else []
    dates: set[tuple[int | None, int | None, int | None]] | None = None
    for gold in golds:
        forms = _forms(gold)
        if any(contains(words, form) for form in forms):
            return 1.0
        if _DENIES.search(gold):  # "not guilty", "no": the denial is the answer
            denied = tokens(text) if denied is None else denied
            if any(contains(denied, form) for form in forms):
                return 1.0
        if not forms:
            continue
        if (date := _date(forms[0])) is not None or (numeric := _dates((), gold)):
            dates = _dates(words, said) if dates is None else dates
            if (date in dates) if date is not None else bool(numeric & dates):
                return 1.0
    return 0.0
