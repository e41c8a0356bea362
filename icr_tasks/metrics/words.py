"""The words of a text in one form: what `subem_norm` compares."""

from __future__ import annotations

import re
import unicodedata

from .numbers import as_digits

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
# British -> American, abbreviations, and symbols: word for word.
_SPELLINGS = (
    "colour=color favour=favor honour=honor labour=labor harbour=harbor neighbour=neighbor "
    "centre=center theatre=theater metre=meter litre=liter kilometre=kilometer fibre=fiber "
    "defence=defense offence=offense licence=license grey=gray aluminium=aluminum tyre=tire "
    "programme=program organisation=organization civilisation=civilization travelled=traveled "
    "travelling=traveling jewellery=jewelry catalogue=catalog dialogue=dialog analyse=analyze "
    "paediatric=pediatric anaemia=anemia oestrogen=estrogen haemoglobin=hemoglobin mould=mold "
    "plough=plow sulphur=sulfur armour=armor behaviour=behavior flavour=flavor rumour=rumor "
    "vapour=vapor tumour=tumor saint=st mount=mt fort=ft versus=vs doctor=dr mister=mr junior=jr "
    "senior=sr percent=% pct=% okay=ok"
)
_SPELLED = dict(pair.split("=") for pair in _SPELLINGS.split())
_TOKEN = re.compile(
    r"\d+(?:st|nd|rd|th)\b|[$€£¥]?\d+(?:[,.]\d+)*[½¼¾⅓⅔]?|[^\W\d_]+(?:'[^\W\d_]+)*|\d+|%|&|[^\W_]", re.U
)
_DROP = frozenset(("a", "an", "the"))
_NOT_PLURAL = "is was his this us as its has does yes gas bus plus thus news"
_SOME = "hundreds thousands millions billions dozens"  # no numbers
_NO_PLURAL = frozenset(f"{_NOT_PLURAL} {_SOME}".split())


# A footnote's number after a word or a sentence: "Leonardo⁶." A unit's exponent ("km²") stays.
_FOOTNOTE = re.compile(r"(?:(?<=[^\W\d_]{3})|(?<=[.,;!?)\"']))[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_INITIALS = re.compile(r"\b(?:[a-z]\.\s?){2,}")  # U.S., J.F.K., J. R. R.


def _joined(initials: re.Match[str]) -> str:
    word = re.sub(r"[.\s]", "", initials[0])
    return f"{word} " if initials[0][-1].isspace() else word


def articles_only(gold: str) -> bool:
    """Whether a gold has no word but articles: "The The", "A"."""
    words = re.findall(r"\w+", gold.lower())
    return bool(words) and _DROP.issuperset(words)


def says_article(text: str, gold: str) -> bool:
    """Whether such a gold stands in a text as it is written; one article alone not before a word it belongs to."""
    plain, said = (" ".join(re.findall(r"\w+", t)) for t in (gold, text))
    if " " in plain:
        return f" {plain.lower()} " in f" {said.lower()} "
    return re.search(rf"(?<!\w){re.escape(plain)}(?!\w)(?!\s+[a-z])", text) is not None


def tokens(text: str) -> list[str]:
    """The words of a text in one form: numbers as digits, singular, accents and punctuation gone.

    Accents are folded, but no compatibility form: a unit sign does not become a word.
    """
    folded = unicodedata.normalize("NFD", _FOOTNOTE.sub(" ", text.translate(_FOLD)))
    folded = "".join(c for c in folded if not unicodedata.combining(c)).lower().translate(_FOLD)
    folded = _INITIALS.sub(_joined, folded)
    return as_digits([_word(t) for t in _TOKEN.findall(folded) if t not in _DROP] or folded.split())


def _word(token: str) -> str:
    if token[0].isdecimal() or token[0] in "$€£¥":
        plain = token.lstrip("$€£¥")
        if (ordinal := re.fullmatch(r"(\d+)(?:st|nd|rd|th)", plain)) is not None:
            return "".join(str(unicodedata.decimal(c)) for c in ordinal[1]).lstrip("0") or "0"
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
