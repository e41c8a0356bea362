"""What goes into the judge and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import IcrError


@dataclass(frozen=True, slots=True)
class Case:
    """One answer to judge. `question` is what the judge sees (Loong: instruction and question, without documents);
    `gold` the correct answer as text; `documents` the gold passages, which only rubric `paper` shows."""

    question: str
    gold: str
    response: str
    id: str
    documents: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome for one case.

    `score` is 0-1 (Loong: rating / 100; paper: criteria met / 3) and None for a failure, whose `reason` says why.
    `rating` is the value as given (1-100, or 0-3), `criteria` the named binary ones of rubric `paper`. `reply` is the
    judge's raw text, `cached` whether it came from the store, `flagged` whether the response held text that
    imitates a verdict, a chat token or an instruction to the judge (it was defused before it was shown).
    """

    id: str
    status: str  # "ok" or "failed"
    score: float | None = None
    rating: float | None = None
    criteria: dict[str, int] = field(default_factory=dict)
    reason: str | None = None
    reply: str | None = None
    cached: bool = False
    flagged: bool = False

    @property
    def ok(self) -> bool:
        """True for a usable verdict."""
        return self.status == "ok"


class JudgeUnavailable(IcrError):
    """The judge cannot be reached or refuses to serve; exit code 3. Verdicts so far are in the store and `verdicts`."""

    def __init__(self, message: str, verdicts: list[Verdict] | None = None) -> None:
        super().__init__(message, exit_code=3)
        self.verdicts = verdicts or []


def metrics_of(verdict: Verdict) -> dict[str, float]:
    """Per-item metrics, to be averaged over the items that have them.

    `judge` (0-1) and `perfect` exist only for parsed verdicts, as in Loong's official averages; `judge_zero` counts a
    failure as 0, `judge_parsed` and `judge_failed` count. Rubric `paper` adds its three criteria.
    """
    if not verdict.ok or verdict.score is None:
        return {"judge_zero": 0.0, "judge_parsed": 0.0, "judge_failed": 1.0}
    named = {f"judge_{name}": float(value) for name, value in verdict.criteria.items()}
    perfect = float(verdict.score == 1.0)
    score = verdict.score
    return {"judge": score, "judge_zero": score, "perfect": perfect, "judge_parsed": 1.0, "judge_failed": 0.0, **named}
