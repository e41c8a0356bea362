"""The hybrid reward: a judge is asked only where the rule gives nothing, and only about answers with their
marker."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from icr_tasks.errors import IcrError
from icr_tasks.training import config as configs
from icr_tasks.training.rewards import Row, compute_score, score, trl_reward
from icr_tasks.training.rewards.match import Options
from icr_tasks.training.rewards.paper import doubtful

ROW = Row(
    answers=("New York City",), question="Where?", gold_ids=(0,), gold_docs=("It stands in New York City.",)
)
RIGHT, OTHER_WORDS, WRONG, NO_MARKER = "Answer: New York City", "Answer: NYC", "Answer: Oslo", "NYC it is"
YES = "\\boxed{Criterion 1: 1}\n\\boxed{Criterion 2: 1}\n\\boxed{Criterion 3: 1}"
NO = YES.replace("3: 1", "3: 0")
TEXTS = [RIGHT, OTHER_WORDS, WRONG, NO_MARKER]


def judge(prompts: list[str]) -> list[str]:
    return [YES if "[AI Model Solution]: Answer: NYC\n" in p else NO for p in prompts]


def test_the_better_of_rule_and_judge() -> None:
    assert doubtful(TEXTS, [ROW] * 4) == [1, 2]
    found = score("hybrid", TEXTS, [ROW] * 4, replies=[None, YES, NO, None])
    assert [s["reward"] for s in found] == [1.0, 1.0, 0.0, 0.0]
    assert [(s["answer"], s["judge"], s["asked"]) for s in found] == [
        (1, 0, 0),
        (0, 1, 1),
        (0, 0, 1),
        (0, 0, 0),
    ]
    assert math.isnan(score("hybrid", [WRONG], [ROW], replies=["no box"])[0]["reward"])


def test_the_judge_alone_is_asked_about_every_answer_and_overrules_the_rule() -> None:
    alone = {"rule": False}
    assert doubtful(TEXTS, [ROW] * 4, Options(rule=False)) == [0, 1, 2]
    found = score("hybrid", TEXTS, [ROW] * 4, options=alone, replies=[NO, YES, NO, None])
    assert [(s["reward"], s["answer"]) for s in found] == [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.0, 0.0)]
    reward = trl_reward("hybrid", options=alone, ask=lambda prompts: [YES] * len(prompts))
    logged: dict[str, float] = {}
    columns = {"answers": [list(ROW.answers)] * 4, "question": ["Where?"] * 4}
    assert reward(completions=TEXTS, log_metric=logged.__setitem__, **columns) == [1.0, 1.0, 1.0, 0.0]
    assert logged["hybrid/asked"] == 0.75  # what the judge costs stands in the log of a run


def test_trl_asks_about_doubtful_completions_alone() -> None:
    asked: list[str] = []

    def ask(prompts: list[str]) -> list[str]:
        asked.extend(prompts)
        return judge(prompts)

    reward = trl_reward("hybrid", ask=ask)
    columns = {"answers": [list(ROW.answers)] * 4, "question": ["Where?"] * 4}
    assert reward(completions=TEXTS, **columns) == [1.0, 1.0, 0.0, 0.0] and len(asked) == 2
    assert reward(completions=[RIGHT] * 4, **columns) == [1.0] * 4 and len(asked) == 2
    silent = trl_reward("hybrid", ask=lambda prompts: [None] * len(prompts))
    assert silent(completions=TEXTS, **columns) == [1.0, None, None, 0.0]  # no verdict: missing, not wrong


def test_verl_asks_about_doubtful_completions_alone() -> None:
    def refuse(prompts: list[str]) -> list[str]:
        raise AssertionError("a right answer needs no judge")

    truth = {"answers": ["New York City"]}
    told = {"score": 1.0, "answer": 1.0, "judge": 0.0, "asked": 0.0}
    assert compute_score("x", RIGHT, truth, reward="hybrid", ask=refuse) == told
    assert compute_score("x", OTHER_WORDS, truth, reward="hybrid", ask=judge)["score"] == 1.0
    with pytest.raises(IcrError, match="no readable verdict"):
        compute_score("x", WRONG, truth, reward="hybrid", ask=lambda prompts: [None])


def test_configs_name_their_judge() -> None:
    pytest.importorskip("trl", reason="configs are checked against TRL (extra [train])")
    tree = configs.read(Path("grpo_hybrid.yaml"))
    assert configs.of(tree).reward["name"] == "hybrid"
    for reward, says in (
        ({"name": "hybrid"}, "reward.judge.base_url"),
        ({**tree["reward"], "preset": "paper_code"}, "has no reward 'hybrid'"),
        ({"name": "ao", "judge": tree["reward"]["judge"]}, "asks no judge"),
    ):
        with pytest.raises(IcrError, match=says):
            configs.of({**tree, "reward": reward})
    with pytest.raises(IcrError, match="needs a judge"):
        trl_reward("hybrid")
