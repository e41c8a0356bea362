"""Rewards as TRL's GRPOTrainer calls them (`reward_funcs`): keyword columns in, one float or None a
completion out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from icr_tasks.errors import IcrError
from icr_tasks.metrics.visible import visible

from . import registry
from .match import Options, rows
from .paper import JUDGED, Ask, judge_of, replies_for

Completion = str | Sequence[Mapping[str, Any]]


def text_of(completion: Completion) -> str:
    """The text of a completion: plain, or the last message of a conversation."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if len(completion) else ""
    if isinstance(content, list):  # content in parts
        content = "".join(part.get("text") or "" for part in content)
    return content or ""


def trl_reward(
    name: str,
    preset: str = "paper",
    options: Options | Mapping[str, Any] | None = None,
    *,
    ask: Ask | None = None,
    judge: Mapping[str, Any] | None = None,
    opened: bool = False,
) -> Callable[..., list[float | None]]:
    """The callable for `reward_funcs`; `__name__` is what TRL logs (`rewards/<name>/mean`).

    Reads the columns `answers`, `gold_ids`, `gold_docs`, `question`, `original_ids`. A row whose judge failed
    gives None, never a partial sum (TRL would count a missing term as zero against its siblings). Terms are
    logged as metrics and columns where TRL offers it. Rewards `judge` and `hybrid` need `judge` (base_url,
    model, ...) or `ask` (prompts -> replies). `opened`: the chat template begins the thought, so completions
    begin inside one (`icr_tasks.training.rows.opened`).
    """
    chosen = registry.options_of(options, preset)
    registry.score(
        name, [], [], preset=preset, options=options, replies=[]
    )  # names are checked before training
    if name in JUDGED and ask is None:
        if not judge:
            raise IcrError(
                f"reward {name!r} needs a judge: give judge={{base_url, model}} or ask= (docs/rewards.md)"
            )
        ask = judge_of(judge, preset)

    def reward(
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Completion] = (),
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        texts = [text_of(c) for c in completions]
        data = rows(columns, len(texts))
        shown = [visible(t, opened).text for t in texts]  # what the reward reads, and nothing else is judged
        replies = replies_for(name, shown, data, chosen, ask) if ask and name in JUDGED else None
        given = chosen if preset == "paper" else None
        scores = registry.score(
            name, texts, data, preset=preset, options=given, replies=replies, opened=opened
        )
        for term in scores[0] if scores else ():
            values = [s[term] for s in scores]
            good = [v for v in values if not math.isnan(v)]
            if log_metric and good and term != "reward":
                log_metric(f"{name}/{term}", sum(good) / len(good))
            if log_extra and term != "reward":
                log_extra(f"{name}_{term}", values)
        if log_metric and scores:
            log_metric(f"{name}/failed", sum(math.isnan(s["reward"]) for s in scores) / len(scores))
        return [None if math.isnan(s["reward"]) else s["reward"] for s in scores]

    reward.__name__ = name
    return reward
