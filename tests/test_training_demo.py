"""`icr train demo`: its rows and base conversations, and the reduced run, which must show a significant rise."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from icr_tasks.data.synth import names, short
from icr_tasks.training.demo import rows


@pytest.mark.parametrize("prompt", ["ao", "id"])
def test_demonstrations_are_careless_and_rewards_know_better(prompt: str) -> None:
    from icr_tasks.training import rewards

    made = list(rows.rows(240, [8], prompt, seed=5))
    assert len({r["id"] for r in made}) == 240
    best = 1.0 if prompt == "ao" else 2.0
    given, owed = [], []
    for r in made:
        row = rewards.Row(tuple(r["answers"]), tuple(r["gold_ids"]), tuple(r["gold_docs"]), question=r["question"])
        right = rows.answer(prompt, r["gold_ids"][0], r["answers"][0])
        given.append(rewards.score(prompt, [r["target"]], [row])[0]["reward"])
        owed.append(rewards.score(prompt, [right], [row])[0]["reward"])
    assert owed == [best] * 240
    assert 0.25 < sum(g == best for g in given) / 240 < 0.42  # one of three


def test_training_names_never_occur_in_the_test_split() -> None:
    trained = {p.rsplit(" was born", 1)[0] for r in rows.rows(60, [8], "ao", 0, "biography") for p in r["passages"]}
    tested = {u.title for i in short.load("biography", "256", n=60).items for u in i.units()}
    assert all(names._mine(name, "train") for name in trained if " " in name and len(name.split()) == 2)
    assert not trained & tested


@pytest.mark.parametrize("passages", [2, 9])
def test_conversation_asks_each_passage_once_and_cites_it(passages: int) -> None:
    formats = set()
    for seed in range(12):
        talk = rows.conversation(random.Random(seed), passages, most=12)
        answers = [m["content"] for m in talk if m["role"] == "assistant"]
        context = talk[1]["content"]
        assert len(answers) == len(set(m["content"] for m in talk if m["role"] == "user")) == passages
        for text in answers:
            formats.add(text[:3])
            if text.startswith("[DOC"):
                tag, _, value = text.partition("\nThe answer is: ")
                passage = context.partition(tag + "\n")[2].partition("\n\n")[0]
                assert value.removesuffix(".") in passage
    assert formats == {"[DO", "Ans"}


def test_vocabulary_covers_the_short_world(tmp_path: Path) -> None:
    tiny = pytest.importorskip("icr_tasks.training.demo.tiny")
    pytest.importorskip("tokenizers")
    tokenizer = tiny.tokenizer()
    for seed in range(8):
        text = tokenizer.apply_chat_template(rows.conversation(random.Random(seed), 8, most=24), tokenize=False)
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert len(ids) < 260
    assert tiny.content_ids(tokenizer).sum() > 200
