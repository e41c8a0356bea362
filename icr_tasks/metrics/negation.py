"""What a text says is *not* the answer: a small table of forms, taken out before `subem_norm` looks for the
gold.

"not X but Y", "X, not Y", "rather than X" name X to deny it; "cannot be determined ... X" refuses. The rule
reads surfaces, not meaning: docs/metrics.md shows how many right answers it costs on human labels. SubEM
itself (the paper's metric) does not use it.
"""

from __future__ import annotations

import re

_CLAUSE = r"[^.,;:!?\n]{1,80}?"
_FORMS: tuple[re.Pattern[str], ...] = (
    # "not X but Y", "It was not X; it was Y": the denied part goes, the rest stays
    re.compile(
        rf"\b(?:not|isn['’]t|wasn['’]t|aren['’]t|weren['’]t|never)\s+(?!only\b|just\b|merely\b){_CLAUSE}"
        r"(?=\s*[,;–—]?\s*(?:but|it\s+(?:is|was)|rather)\b)",
        re.I,
    ),
    # "Y, not X" and "Y and not X"
    re.compile(
        rf"(?:,|\band|\bbut)\s+not\s+(?!only\b|just\b|merely\b|until\b|far\b){_CLAUSE}(?=[.,;:!?\n]|\Z)", re.I
    ),
    re.compile(rf"\b(?:rather\s+than|instead\s+of|as\s+opposed\s+to)\s+{_CLAUSE}(?=[.,;:!?\n]|\Z)", re.I),
)
_REFUSAL = re.compile(
    r"\b(?:can(?:not|['’]t|\s+not)|could(?:n['’]t|\s+not)|(?:is|am|are|was)\s+(?:unable|not\s+able)\s+to|impossible\s+to)\s+(?:be\s+)?"
    r"(?:determin|answer|identif|establish|know|say|tell|find|conclu|infer|verif)\w*"
    r"|\b(?:do(?:es)?|did)\s*(?:n['’]t|\s+not)\s+(?:mention|specify|provide|state|contain|say|include|give|indicate|identify)\w*"
    r"|\b(?:not|never)\s+(?:explicitly\s+|directly\s+)?(?:mentioned|specified|provided|stated|given|clear|known|available)\b"
    r"|\bno\s+(?:\w+\s+)?(?:information|mention|evidence|answer)\b",
    re.I,
)
_SENTENCE = re.compile(r"[^.!?\n]*(?:\.(?=\w)[^.!?\n]*)*[.!?\n]*")
_TURN = re.compile(
    r"\b(?:but|however|although|though|nevertheless|based on|it is (?:likely|probably))\b", re.I
)


def affirmed(text: str) -> str:
    """The text without what it denies: refusing sentences (up to a "but") and the forms above."""
    if _REFUSAL.search(text):
        text = "".join(map(_without_refusal, _SENTENCE.findall(text)))
    for form in _FORMS:
        text = form.sub(" ", text)
    return text


def _without_refusal(sentence: str) -> str:
    if not _REFUSAL.search(sentence):
        return sentence
    after = [m for m in _TURN.finditer(sentence) if m.start() > _REFUSAL.search(sentence).start()]  # type: ignore[union-attr]
    return f" {sentence[after[0].start() :]}" if after else " "
