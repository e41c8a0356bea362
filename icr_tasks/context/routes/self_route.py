"""`route:self@4k`: read what was retrieved; the model answers, or says that the answer is not there, and only
then reads the whole context (Self-Route; Li et al. 2024, arXiv 2407.16833).

As in the source the second prompt offers no way out, and an answer that is merely wrong is kept.
"""

from __future__ import annotations

import re

from ...metrics.extract import extract_answer
from ...registry import ROUTES
from .base import Route

_WORD = "unanswerable"
_SAID = re.compile(rf"\b{_WORD}\b", re.I)


@ROUTES.register("self", retrieves=True)
class SelfRoute(Route):
    """The model itself is the router."""

    @property
    def asks(self) -> str:
        """In words of our own: what the text is, and the one word that sends the question on."""
        return (
            "The text below is only a part of a longer one. Answer from it as you are asked to; if it does not "
            f"hold the answer, give the one word {_WORD} as your answer."
        )

    def goes_on(self, answer: str, *, marker: bool) -> bool:
        """The word stands in the answer; where a marker was asked for and given, in what follows it, so that
        reasoning about the word is no refusal."""
        found = extract_answer(answer)
        return bool(_SAID.search(found.text if marker and found.found else answer))
