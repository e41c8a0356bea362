"""Cases in, verdicts out: what the store knows is not asked again, the rest goes to the server in one
batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from .config import JudgeConfig
from .endpoint import Outcome, Unreachable, ask_all, load_openai
from .rubrics import RUBRICS, Case, JudgeUnavailable, Verdict
from .store import VerdictStore, key_of


class Judge:
    """A judge with its store. Raises IcrError at once when openai is missing or the store cannot be
    opened."""

    def __init__(self, config: JudgeConfig, *, progress: bool = False) -> None:
        load_openai()
        self.config, self.rubric = config, RUBRICS[config.rubric]
        self.store = VerdictStore(config.store)
        self.calls = 0
        self._progress = progress

    def key(self, case: Case) -> str:
        """A case's key in the store: judge model, revision, rubric version, question, gold, documents,
        response, and the item's rule where there is one."""
        documents = case.documents if self.config.rubric == "paper" else ""
        rule = [case.rule] if case.rule else []  # a verdict without one keeps the key it had
        return key_of(*self.config.identity(), case.question, case.gold, documents, case.response, *rule)

    def score(self, cases: Sequence[Case]) -> list[Verdict]:
        """One verdict a case, in order; equal cases are asked for once.

        Raises JudgeUnavailable (exit code 3) when the server cannot be used; what it had judged is in the
        store and in the error's `verdicts`.
        """
        keys = [self.key(case) for case in cases]
        known = self.store.get(dict.fromkeys(keys))
        shown = [self.rubric.render(case) for case in cases]
        todo = list({key: n for n, key in reversed(list(enumerate(keys))) if key not in known}.values())[::-1]
        fresh: dict[str, Outcome] = {}

        def done(index: int, outcome: Outcome) -> None:
            key = keys[todo[index]]
            value = asdict(outcome.value) if outcome.value else None
            fresh[key] = outcome
            self.store.put(
                key, self.config.identity(), cases[todo[index]].id, outcome.replies, value, outcome.reason
            )
            self.calls += len(outcome.replies)
            bar.update()

        def verdicts(among: Sequence[int]) -> list[Verdict]:
            return [
                self._verdict(cases[n].id, known.get(keys[n]), fresh.get(keys[n]), shown[n][1]) for n in among
            ]

        with tqdm(
            total=len(todo), desc=f"judge {self.config.model}", disable=not self._progress or not todo
        ) as bar:
            try:
                ask_all(
                    self.config.endpoint(),
                    [shown[n][0] for n in todo],
                    lambda _, r: self.rubric.parse(r),
                    done,
                )
            except Unreachable as error:
                have = [n for n, key in enumerate(keys) if key in known or key in fresh]
                raise JudgeUnavailable(f"the judge cannot be used: {error}", verdicts(have)) from None
            finally:
                self.store.flush()
        return verdicts(range(len(cases)))

    @staticmethod
    def _verdict(case: str, known: dict[str, Any] | None, outcome: Outcome | None, flagged: bool) -> Verdict:
        if known is not None:
            return Verdict(case, "ok", **known["value"], reply=known["reply"], cached=True, flagged=flagged)
        assert outcome is not None  # neither stored nor asked cannot be
        reply = outcome.replies[-1] if outcome.replies else None
        if outcome.reason is not None:
            return Verdict(case, "failed", reason=outcome.reason, reply=reply, flagged=flagged)
        return Verdict(case, "ok", **asdict(outcome.value), reply=reply, flagged=flagged)
