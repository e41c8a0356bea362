"""Names of people: initials for given names, middle names and titles left out, on either side.

"B. R. Ambedkar" is Bhimrao Ramji Ambedkar, "Christopher Lloyd" is Christopher Allen Lloyd. The surname must
stand in full.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TITLE = re.compile(
    r"\A(?:(?:General|Gen|President|Pres|Doctor|Dr|Sir|Dame|Captain|Capt|Colonel|Col|Major|Maj|Lieutenant|Lt|Admiral|Adm"
    r"|Professor|Prof|Senator|Sen|Governor|Gov|Justice|Judge|Reverend|Rev|Mr|Mrs|Ms|Miss|Lord|Lady|King|Queen|Prince"
    r"|Princess|Pope|Emperor|Coach)\.?\s+)+(?=[A-Z][\w'’.-]*\s+[A-Z])"
)
_PERSON = re.compile(r"(?:[A-Z][\w'’-]*\.?\s*){2,4}")
# Words of places, institutions and works: what has one is no person.
_OTHER = re.compile(
    r"\b(?:The|Of|And|University|College|School|Church|City|County|State|States|Street|Road|Avenue|River|Lake|Sea|Ocean|Bay"
    r"|Island|Islands|Mountain|Mountains|Mount|Park|War|Wars|Battle|Act|Party|Company|Corporation|Inc|Ltd|Band|Museum|House"
    r"|Court|Congress|Senate|Kingdom|Empire|Republic|Union|North|South|East|West|New|San|Los|Las|St|Saint|Fort|Great|United"
    r"|World|National|International|American|British|League|Club|Cup|Award|Awards|Bowl|Day|Night|Football|Baseball|January"
    r"|February|March|April|May|June|July|August|September|October|November|December)\b"
)


def without_title(gold: str) -> str:
    """ "General George Washington" -> "George Washington"; a title before one name alone stays."""
    return _TITLE.sub("", gold.strip())


def is_person(gold: str) -> bool:
    """Whether a gold looks like a person's given names and surname: two to four capitalised words."""
    plain = without_title(gold)
    last = plain.rpartition(" ")[2]
    return (
        _PERSON.fullmatch(plain) is not None
        and _OTHER.search(plain) is None
        and len(last.strip(".")) > 2
        and not last.isupper()
    )


def names(words: Sequence[str], gold: Sequence[str]) -> bool:
    """Whether the words name the person whose given names and surname are `gold` (both in one form)."""
    if len(gold) < 2:
        return False
    *given, surname = gold
    return any(
        word == surname and _precede(words[max(0, at - 5) : at], given) for at, word in enumerate(words)
    )


def _precede(before: Sequence[str], given: Sequence[str]) -> bool:
    n = len(given)
    letters = "".join(name[0] for name in given)
    last = before[-1] if before else ""
    if len(before) >= n and all(_alike(a, b) for a, b in zip(before[-n:], given, strict=True)):
        return True
    if n > 1 and last in (letters, given[0]) and len(last) > 1:  # "BR Ambedkar"; the middle name left out
        return True
    k = len(given[0])
    if n == 1 and k in (2, 3) and "".join(name[0] for name in before[-k:]) == given[0]:  # "JRR Tolkien"
        return True
    # a middle initial that the gold does not have
    return len(before) > 1 and n == 1 and len(last) == 1 and last.isalpha() and before[-2] == given[0]


def _alike(a: str, b: str) -> bool:
    """Equal, or one the initial of the other."""
    return a == b or (a[0] == b[0] and a[0].isalpha() and 1 in (len(a), len(b)))
