"""`icr train demo`: its rows and base conversations, and the reduced run, which must show a significant
rise."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from icr_tasks.benchmarks.synth import names, short
from icr_tasks.training.demo import base as rows


@pytest.mark.parametrize("prompt", ["ao", "id"])
def test_demonstrations_are_careless_and_rewards_know_better(prompt: str) -> None:
    from icr_tasks.training import rewards

    made = list(rows.rows(240, [8], prompt, seed=5))
    assert len({r["id"] for r in made}) == 240
    best = 1.0 if prompt == "ao" else 2.0
    given, owed = [], []
    for r in made:
        row = rewards.Row(
            tuple(r["answers"]), tuple(r["gold_ids"]), tuple(r["gold_docs"]), question=r["question"]
        )
        right = rows.answer(prompt, r["gold_ids"][0], r["gold_docs"][0], r["answers"][0])
        given.append(rewards.score(prompt, [r["target"]], [row])[0]["reward"])
        owed.append(rewards.score(prompt, [right], [row])[0]["reward"])
    assert owed == [best] * 240
    assert 0.25 < sum(g == best for g in given) / 240 < 0.42  # one of three


def test_training_names_never_occur_in_the_test_split() -> None:
    trained = {
        p.rsplit(" was born", 1)[0] for r in rows.rows(60, [8], "ao", 0, "biography") for p in r["passages"]
    }
    tested = {u.title for i in short.load("biography", "256", n=60).items for u in i.units()}
    assert all(names.belongs(name, "train") for name in trained if " " in name and len(name.split()) == 2)
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
    tiny = pytest.importorskip("icr_tasks.training.demo.base")
    pytest.importorskip("tokenizers")
    tokenizer = tiny.tokenizer()
    for seed in range(8):
        text = tokenizer.apply_chat_template(
            rows.conversation(random.Random(seed), 8, most=24), tokenize=False
        )
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert len(ids) < 260
    assert tiny.content_ids(tokenizer).sum() > 200


def test_make_train_demo_runs_the_command() -> None:
    """The recipe, less the environment it sets up first."""
    root = Path(__file__).resolve().parent.parent
    # Inside another make, whose variables are inherited, this one would also name the directories it enters.
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "-n", "train-demo", "TRAIN_DEMO_ARGS=--quick"]
    said = subprocess.run(command, cwd=root, env=env, check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-1].split()[-4:] == ["demo", "-o", "train-demo", "--quick"], said


def test_a_folder_is_continued_only_with_its_own_size(tmp_path: Path) -> None:
    from icr_tasks.errors import IcrError
    from icr_tasks.training.demo import run

    run._settle(tmp_path, run.QUICK)
    run._settle(tmp_path, run.QUICK)
    with pytest.raises(IcrError, match="another size"):
        run._settle(tmp_path, run.FULL)
    (tmp_path / "size.json").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(IcrError, match="not empty"):
        run._settle(tmp_path, run.FULL)


def test_the_reduced_run_is_killed_goes_on_and_learns(tmp_path: Path) -> None:
    """The whole chain in CI: minutes. Killed inside GRPO, it goes on from the last checkpoint; then SubEM
    must have risen."""
    for needed in ("torch", "transformers", "trl", "datasets", "lm_eval"):
        pytest.importorskip(needed)
    from icr_tasks.training import curves
    from icr_tasks.training.demo import report, run

    out, grpo = tmp_path / "demo", tmp_path / "demo" / "ao-s0"
    with (tmp_path / "log").open("w") as log:
        first = _start(out, log)
        _wait(first, lambda: run._lines(grpo / "metrics.jsonl") > 12, tmp_path / "log")
        first.kill()
        first.wait()
    base = (out / "base" / "model.safetensors").stat().st_mtime_ns
    with (tmp_path / "log").open("a") as log:
        assert _start(out, log).wait() == 0, (tmp_path / "log").read_text()[-3000:]
    assert (out / "base" / "model.safetensors").stat().st_mtime_ns == base
    steps = [json.loads(line)["step"] for line in (grpo / "metrics.jsonl").read_text().splitlines()]
    assert steps.count(10) == 1 and steps.count(11) == 2  # the checkpoint of step 10 was used
    assert [row["step"] for row in curves.history(grpo)] == list(range(1, run.QUICK.steps + 1))

    from icr_tasks.training import evaluate

    trained = [evaluate.read(run.checkpoint.latest(out / name)) for name in ("ao-s0", "sft-ao")]
    found = list(report.rises(out / "eval" / "results", trained, run.QUICK))
    assert [r.setting for r in found] == ["full", "rag@48", "kv:snapkv@0.3,window=8"]
    for rise in found:
        assert rise.items == run.QUICK.items * len(run.QUICK.tasks)
        assert rise.significant and rise.delta.p < 0.01 and rise.delta.mean > 0.1, report.rows(found)
    board = (out / "board" / "board.md").read_text()
    for name in ("base", "sft-ao@", f"ao-s0@{run.QUICK.steps}", "rag@48", "kv:snapkv@0.3"):
        assert name in board
    assert (out / "board" / "board.html").is_file()
    assert (out / "curves.svg").read_text().count("<polyline") == 3
    assert report.rows(found) in (out / "report.md").read_text()


def _start(out: Path, log: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "icr_tasks.cli", "train", "demo", "--quick", "-o", str(out)]
    return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})  # type: ignore[call-overload]


def _wait(process: subprocess.Popen[bytes], done: Callable[[], bool], log: Path) -> None:
    while not done():
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.2)
