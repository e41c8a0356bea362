"""The numbers of a finished study: ledgers of every arm and seed, paired and pooled, and what training
cost."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icr_tasks.errors import IcrError
from icr_tasks.settings import Setting

from ...leaderboard.pairs.seeds import Pooled, pooled, with_seeds
from .. import checkpoint, curves
from ..evaluate import newest
from .spec import START, Study

if TYPE_CHECKING:
    from icr_tasks.leaderboard.ledgers.load import Run
    from icr_tasks.leaderboard.pairs.joined import Pairs

SAME = 0.02  # token counts within this share of each other are called equal


@dataclass(frozen=True)
class Cost:
    """Means over an arm's seeds: optimizer steps, tokens TRL counted, CPU and wall seconds of the whole
    process, last reward, share of the completions that a judge was asked about."""

    steps: float
    tokens: float
    cpu: float
    wall: float
    reward: float | None
    asked: float | None = None


class Results:
    """Ledgers of a study. `against` is an arm, or START: the model all arms began with."""

    def __init__(self, study: Study, begin: str) -> None:
        self.study, self.begin = study, begin
        self.runs: dict[tuple[str, str, str], Run] = newest(study.out / "eval" / "results")
        self.pairs = lru_cache(None)(self._pairs)

    def settings(self) -> list[str]:
        """Settings in the order of the study file, as ledgers name them."""
        return [str(Setting.parse(str(s))) for s in self.study.evaluate.get("settings", ["full"])]

    def _pairs(self, arm: str, against: str, setting: str) -> list[Pairs]:
        from icr_tasks.leaderboard.pairs import joined

        prompt = self.study.prompt(arm)
        # arms may answer in formats of their own: then a difference is one of whole recipes
        other = against != START and self.study.prompt(against) != prompt
        return [
            joined.pair(
                self._run(against, s, setting, prompt),
                self._run(arm, s, setting, prompt),
                allow=("prompts",) if other else (),
            )
            for s in self.study.seeds
        ]

    def pooled(self, arm: str, against: str, setting: str, tasks: tuple[str, ...] = ()) -> Pooled:
        """The arm's difference to `against` over all seeds, on the named tasks (default: all)."""
        one = self._alone(arm, against, setting, tasks)
        prior = self.prior(against, setting, tasks)
        if prior is None:
            return one
        free = max(one.free, prior[1])
        return replace(one, total=with_seeds(one.delta, one.each, prior), free=free)

    def _alone(self, arm: str, against: str, setting: str, tasks: tuple[str, ...]) -> Pooled:
        found = self.pairs(arm, against, setting)
        return pooled(found, np.isin(found[0].task.astype(str), tasks) if tasks else None)

    def prior(self, against: str, setting: str, tasks: tuple[str, ...] = ()) -> tuple[float, int] | None:
        """Variance over seeds pooled over all arms and the study file's `seed_spread`, and its degrees of
        freedom: two seeds of one arm can agree by luck. Arms that changed no answer tell nothing. None with
        one seed and nothing given."""
        parts: list[tuple[float, int]] = []
        if len(self.study.seeds) > 1:
            found = [self._alone(a, against, setting, tasks) for a in self.study.arms if a != against]
            each = [one.each for one in found if one.identical < 1.0]
            parts = [(float(np.var(e, ddof=1)), len(e) - 1) for e in each]
        if given := self.study.seed_spread:
            parts.append(((float(given["points"]) / 100) ** 2, int(given["df"])))
        free = sum(df for _, df in parts)
        return (sum(v * df for v, df in parts) / free, free) if free else None

    def folder(self, arm: str, seed: int) -> Path:
        """The last checkpoint of a run."""
        last = checkpoint.latest(self.study.out / "runs" / f"{arm}-s{seed}")
        if last is None:
            raise IcrError(f"{arm} has no checkpoint under seed {seed}; run the study again")
        return last

    def _run(self, arm: str, seed: int, setting: str, prompt: str) -> Run:
        source = self.begin if arm == START else str(self.folder(arm, seed).resolve())
        used = prompt if arm == START else self.study.prompt(arm)
        try:
            return self.runs[source, setting, used]
        except KeyError:
            raise IcrError(f"no ledger of {source} under {setting}; run the study again") from None

    def cost(self, arm: str) -> Cost:
        """What an arm's runs took, averaged over seeds."""
        found: list[dict[str, Any]] = []
        for seed in self.study.seeds:
            last = self.folder(arm, seed)
            spent = json.loads((last.parent / "study.json").read_text())
            rows = curves.history(last.parent)
            rewards = [r["reward"] for r in rows if "reward" in r]
            asked = [v for r in rows for k, v in r.items() if k.endswith("/asked")]
            found.append(
                {
                    "steps": checkpoint.step_of(last),
                    "tokens": max((r["num_tokens"] for r in rows if "num_tokens" in r), default=0),
                    "reward": np.mean(rewards[-max(1, len(rewards) // 4) :]) if rewards else np.nan,
                    "asked": np.mean(asked) if asked else np.nan,
                    **spent,
                }
            )
        mean = {
            k: float(np.mean([f[k] for f in found]))
            for k in ("steps", "tokens", "cpu", "wall", "reward", "asked")
        }
        seen = {k: None if np.isnan(mean[k]) else mean[k] for k in ("reward", "asked")}
        return Cost(mean["steps"], mean["tokens"], mean["cpu"], mean["wall"], seen["reward"], seen["asked"])


def equal_tokens(costs: dict[str, Cost]) -> str:
    """One sentence: whether the arms saw equally many tokens and steps."""
    steps, tokens = [c.steps for c in costs.values()], [c.tokens for c in costs.values()]
    more = max(tokens) / min(tokens) - 1 if min(tokens) else float("inf")
    same = (
        "equal steps"
        if max(steps) == min(steps)
        else f"NOT equal steps ({min(steps):.0f} to {max(steps):.0f})"
    )
    if more <= SAME:
        return f"Arms are at {same} and equal tokens (within {100 * more:.1f} %)."
    most, least = max(costs, key=lambda a: costs[a].tokens), min(costs, key=lambda a: costs[a].tokens)
    return f"Arms are at {same}, but NOT at equal tokens: {most} saw {100 * more:.1f} % more than {least}."
