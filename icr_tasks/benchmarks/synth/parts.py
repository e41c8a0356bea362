"""What the generated families share: checked arguments, and prose around a fact."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...errors import unknown
from . import names

WORDS = 92  # of a passage, as in icr_synth_rag


def count(
    length: str | None,
    passages: int | None,
    table: Mapping[str, int],
    split: str,
    kinds: Sequence[str],
    known: Collection[str],
) -> int:
    """How many passages are asked for. Raises IcrError for an unknown length, split or kind of question."""
    if length not in table and passages is None:
        raise unknown("synth length", str(length), table)
    if split not in ("test", "train"):
        raise unknown("split", split, ("test", "train"))
    for kind in kinds:
        if kind not in known:
            raise unknown("question kind", kind, known)
    return passages or table[str(length)]


def stated(passages: Sequence[str], forms: Sequence[str], **known: str) -> list[dict[str, str]]:
    """What sentences of the passages state in one of these forms, by field, in reading order; `known` fields stand as
    given."""

    def field(found: re.Match[str]) -> str:
        return re.escape(known[found[1]]) if found[1] in known else f"(?P<{found[1]}>[^.]+)"

    patterns = [re.compile(re.sub(r"\\\{(\w+)\\\}", field, re.escape(form))) for form in forms]
    sentences = [part.strip() for text in passages for part in re.findall(r"[^.]+\.", text)]
    return [found.groupdict() for part in sentences for p in patterns if (found := p.fullmatch(part))]


def around(sentence: str, groups: Sequence[str], r: Any) -> str:
    """A passage of about 90 words with the sentence at a place of its own among fillers of these groups."""
    fillers = [s for group in groups for s in names.FILLER[group] if "{name}" not in s]
    r.shuffle(fillers)
    text, words = [sentence], len(sentence.split())
    while fillers and words < WORDS:
        text.insert(r.randint(0, len(text)), filler := fillers.pop())
        words += len(filler.split())
    return " ".join(text)
