"""Rewards as verl calls them (`custom_reward_function.path` = this file, `.name` = compute_score).

verl loads the file by its path, so every import here is absolute. The reward is chosen by
`custom_reward_function.reward_kwargs.reward`, or by a row's `extra_info.reward`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from icr_tasks.errors import IcrError
from icr_tasks.metrics.visible import visible
from icr_tasks.training.rewards import registry
from icr_tasks.training.rewards.match import Row
from icr_tasks.training.rewards.paper import JUDGED, Ask, judge_of, replies_for


def _row(ground_truth: Any, extra_info: Mapping[str, Any]) -> Row:
    """`ground_truth`: a row's columns as mapping or JSON, or just the answer(s), a number or a JSON list too; the
    rest is taken from extra_info."""
    if isinstance(ground_truth, str) and ground_truth.lstrip()[:1] in ("{", "["):
        try:
            read = json.loads(ground_truth)
        except ValueError:
            read = None  # an answer that only begins like JSON: "{x} set", "[12]"
        columns = isinstance(read, Mapping) and "answers" in read
        if columns or (isinstance(read, list) and read and all(isinstance(a, str) for a in read)):
            ground_truth = read
    given = dict(ground_truth) if isinstance(ground_truth, Mapping) else {"answers": ground_truth}
    return Row.of({**extra_info, **given})


@lru_cache(maxsize=4)
def _judge(options: str, preset: str) -> Ask:
    if options == "{}":
        raise IcrError("a judged reward needs reward_kwargs.judge={base_url, model} (docs/rewards.md)")
    return judge_of(json.loads(options), preset)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward: str | None = None,
    preset: str = "paper",
    options: Mapping[str, Any] | None = None,
    ask: Ask | None = None,
    judge: Mapping[str, Any] | None = None,
    opened: bool = False,
) -> dict[str, float]:
    """`{"score": ..., <term>: ...}`, the same keys for every row. A failed judge raises, as verl has no
    missing reward. `opened`: the chat template begins the thought, so completions begin inside one."""
    extra = dict(extra_info or {})
    name = reward or extra.pop("reward", "ao")
    row = _row(ground_truth, extra)
    replies = None
    if name in JUDGED:
        ask = ask or _judge(json.dumps(dict(judge or {}), sort_keys=True), preset)
        replies = replies_for(
            name, [visible(solution_str, opened).text], [row], registry.options_of(options, preset), ask
        )
    scores = registry.score(
        name, [solution_str], [row], preset=preset, options=options, replies=replies, opened=opened
    )[0]
    if scores["reward"] != scores["reward"]:
        raise IcrError(f"row {row.id!r} of {data_source}: the judge gave no readable verdict")
    return {"score": scores["reward"], **{k: v for k, v in scores.items() if k != "reward"}}


async def compute_score_async(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **given: Any,
) -> dict[str, float]:
    """`compute_score` for judged rewards (`custom_reward_function.name=compute_score_async`): calls run side
    by side."""
    return await asyncio.to_thread(
        compute_score, data_source, solution_str, ground_truth, extra_info, **given
    )
