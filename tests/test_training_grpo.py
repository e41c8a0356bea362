"""GRPO through TRL's own trainer: rewards, tables and curves of a run of seconds, and what stops one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trainkit

from icr_tasks import benchmarks
from icr_tasks.benchmarks import base
from icr_tasks.errors import IcrError
from icr_tasks.training import checkpoint, curves, trainers
from icr_tasks.training.data import formats, store

pytest.importorskip("trl", reason="training needs icr-tasks[train]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = trainkit.make(tmp_path_factory.mktemp("grpo"))
    trainers.train_grpo(trainkit.config(root, "grpo", "run", epochs=2, trl={"max_steps": 5}))
    return root / "run"


def test_checkpoints_are_saved_every_n_steps_and_at_the_end(run: Path) -> None:
    assert [checkpoint.step_of(p) for p in checkpoint.all_of(run)] == [2, 4, 5]
    assert not (run / checkpoint.STAGING).exists()


def test_completions_table_follows_the_written_order(run: Path) -> None:
    import pyarrow.parquet as pq

    rows = [r for p in sorted((run / "completions").glob("*.parquet")) for r in pq.read_table(p).to_pylist()]
    names = list(dict.fromkeys((r["step"], r["id"]) for r in rows))
    ids = [r["id"] for r in store.read(run.parent / "data" / "train.parquet")]
    order = json.loads((run / "order.json").read_text())["indices"]
    assert [i for _, i in names] == [ids[i] for i in order][: len(names)] and len(names) == 10
    assert {"completion", "reward", "question", "ao_answer"} <= rows[0].keys() and "prompt" not in rows[0]


def test_reward_and_length_are_logged_and_drawn(run: Path) -> None:
    history = curves.history(run)
    assert [r["step"] for r in history if "reward" in r] == [1, 2, 3, 4, 5]
    assert all(r["completions/max_length"] <= 6 for r in history if "reward" in r)
    svg = (run / "curves.svg").read_text()
    assert svg.startswith("<svg") and "length of completions" in svg and "NaN" not in svg


def test_training_and_evaluation_prompts_are_the_same_object() -> None:
    item = benchmarks.load("synth", "short", "128", n=1).items[0]
    units = item.units()
    row = {"question": item.question, "passages": [u.text for u in units]}
    for name in formats.FORMATS:
        form = base.get("synth", name)
        assert formats.prompt(name) is form
        assert formats.messages(row, name) == form.messages(
            context=form.context(units), question=item.question
        )


def test_a_finished_run_has_nothing_left_to_do_and_another_config_is_refused(
    run: Path, capsys: pytest.CaptureFixture
) -> None:
    args = [str(run / "config.yaml"), "--check"]
    assert trainers.command("grpo", args, trainers.train_grpo, "") == 0
    assert "would continue from" in capsys.readouterr().out
    with pytest.raises(IcrError, match="differs in trl.beta"):
        trainers.command("grpo", [*args, "trl.beta=0.5"], trainers.train_grpo, "")
    with pytest.raises(IcrError, match="icr train grpo"):
        trainers.command("sft", args, trainers.train_grpo, "")


def test_data_are_checked_before_anything_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = trainkit.make(tmp_path)
    config = trainkit.config(root, "grpo", "run")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(IcrError, match="4 process"):
        trainers.train_grpo(config)
    monkeypatch.delenv("WORLD_SIZE")
    records = list(store.read(root / "data" / "train.parquet"))
    for change, says in (
        ({"answers": []}, "no answer"),
        ({"id": records[1]["id"]}, "duplicate id"),
        ({"gold_ids": [99]}, "gold"),
    ):
        store.write(root / "data" / "train.parquet", [{**records[0], **change}, *records[1:]], store.ROW)
        with pytest.raises(IcrError, match=says):
            trainers.train_grpo(config)
    (root / "data" / "train.parquet").unlink()
    with pytest.raises(IcrError, match="icr train data"):
        trainers.train_grpo(config)


def test_rewards_that_are_no_numbers(tmp_path: Path) -> None:
    def half(completions: list[str], **_: object) -> list[float]:
        return [float("nan") if c == "bad" else 1.0 for c in completions]

    recorder = trainers.Recorder(half, tmp_path, every=0)
    assert recorder(completions=["bad", "good"]) == [None, 1.0]
    with pytest.raises(IcrError, match="no value for any of 2"):
        recorder(completions=["bad", "bad"])
