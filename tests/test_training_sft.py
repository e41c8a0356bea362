"""SFT through TRL's own trainer: the loss is on the completion, long prompts lose passages, targets follow
the format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trainkit

from icr_tasks.errors import IcrError
from icr_tasks.training import curves, prepare, trainers
from icr_tasks.training.data import store
from icr_tasks.training.rewards import Row, score
from icr_tasks.training.rows import Report

pytest.importorskip("trl", reason="training needs icr-tasks[train]")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainkit.make(tmp_path_factory.mktemp("sft"))


def test_the_loss_falls_and_is_on_the_completion_alone(root: Path) -> None:
    config = trainkit.config(root, "sft", "run", epochs=12, trl={"learning_rate": 1e-2})
    trainers.train_sft(config)
    losses = [r["loss"] for r in curves.history(root / "run") if "loss" in r]
    assert len(losses) == 24 and losses[-1] < 0.7 * losses[0]

    from datasets import load_from_disk

    rows = load_from_disk(str(root / "run" / "prepared"))
    assert rows[0]["completion"] == [{"role": "assistant", "content": rows[0]["completion"][0]["content"]}]
    assert rows[0]["prompt"][-1]["role"] == "user"


def test_references_earn_the_full_reward(root: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    plain = [
        {k: v for k, v in r.items() if k != "target"} for r in store.read(root / "data" / "train.parquet")
    ]
    store.write(root / "plain" / "train.parquet", plain, store.ROW)
    for prompt, full in (("ao", 1.0), ("id", 2.0), ("idc", 3.0), ("idq", 3.0)):
        config = trainkit.config(
            root, "sft", "none", prompt=prompt, data=str(root / "plain"), max_prompt_length=4000
        )
        made = list(prepare.rows(config, root / "plain" / "train.parquet", tokenizer, Report()))
        texts = [m["completion"][0]["content"] for m in made]
        assert [s["reward"] for s in score(prompt, texts, [Row.of(r) for r in plain])] == [full] * len(plain)


def test_long_prompts_lose_passages_but_not_the_gold_or_the_question(root: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    limit = 45
    config = trainkit.config(root, "grpo", "none", max_prompt_length=limit)
    report = Report()
    made = list(prepare.rows(config, root / "data" / "train.parquet", tokenizer, report))
    assert report.cut == len(made) == 8 and report.gold_dropped == 0 and not report.left_out
    for row in made:
        text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        assert len(tokenizer(text)["input_ids"]) <= limit
        assert row["question"] in text and f"[DOC {row['gold_ids'][0]}]\n{row['gold_docs'][0]}" in text


def test_a_limit_below_the_question_leaves_every_row_out(root: Path) -> None:
    with pytest.raises(IcrError, match="no row of .* 8 left out"):
        trainers.train_sft(trainkit.config(root, "sft", "short", max_prompt_length=5))


def test_lengths_are_not_cut_by_trl(root: Path) -> None:
    """TRL's max_length would cut the end of the sequence, which is the answer."""
    import torch

    args = torch.load(root / "run" / "checkpoint-24" / "training_args.bin", weights_only=False)
    assert args.max_length is None and args.completion_only_loss
    assert json.loads((root / "run" / "order.json").read_text())["indices"][:8] != list(range(8))
