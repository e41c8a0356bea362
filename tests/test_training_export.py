"""Exports: a verifiers package whose rewards equal ours, a search environment, rows that verl has nothing to
cut from."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="training data are parquet files (extra [train])")
pytest.importorskip("rapidfuzz", reason="rewards compare with rapidfuzz (extra [train])")
from icr_tasks.cli import main
from icr_tasks.training.data import formats, store
from icr_tasks.training.export import trl_env, verl
from icr_tasks.training.rewards import Row, score

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "data"
    assert main(["train", "data", "--synth", "24", "--length", "512", "--dev", "0.2", "-o", str(folder)]) == 0
    return folder


def texts(row: store.Record, name: str) -> list[str]:
    """A right completion, a wrong one, a list of guesses, nothing."""
    wrong = formats.target({**row, "answers": ["Nobody at all"]}, name)
    return [formats.target(row, name), wrong, f"Answer: {row['answers'][0]} or Marianne Lyon", ""]


_RUN = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
import icr_retrieval, verifiers.v1 as vf
taskset = icr_retrieval.IcrTaskset(vf.TasksetConfig())
asked = json.load(open(sys.argv[2]))
out = []
for task in taskset:
    for text in asked[task.data.id]:
        class Trace:
            last_reply = text
            rewards, metrics = {}, {}
            def record_reward(self, name, value, weight=1.0):
                self.rewards[name] = value * weight
            def record_metric(self, name, value):
                self.metrics[name] = value
            def record_metrics(self, found):
                self.metrics |= dict(found)
        trace = Trace()
        trace.rewards, trace.metrics = {}, {}
        asyncio.run(task.score(trace))
        out.append([task.data.id, text, sum(trace.rewards.values()), len(task.data.prompt)])
print(json.dumps(out))
"""


@pytest.mark.parametrize("name", ["ao", "id", "idc", "idq"])
def test_the_verifiers_package_gives_our_rewards(name: str, data: Path, tmp_path: Path) -> None:
    python = os.environ.get("ICR_VERIFIERS_PYTHON") or (
        sys.executable if importlib.util.find_spec("verifiers") else ""
    )
    if not python:
        pytest.skip(
            "verifiers is not installed; set ICR_VERIFIERS_PYTHON to a python that has it and icr-tasks"
        )
    out = tmp_path / "env"
    assert main(["train", "export", str(data), "--to", "verifiers", "--reward", name, "-o", str(out)]) == 0
    rows = {r["id"]: r for r in store.read(data / "train.parquet")}
    asked = {i: texts(r, name) for i, r in rows.items()}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    done = subprocess.run(
        [python, "-c", _RUN, str(out), str(tmp_path / "asked.json")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found) == 4 * len(rows)
    for i, text, reward, _ in found:
        assert reward == pytest.approx(score(name, [text], [Row.of(rows[i])])[0]["reward"]), (i, text)
    assert sum(r for *_, r, _ in found) >= len(rows)


def test_the_package_is_whole_without_the_library(data: Path, tmp_path: Path) -> None:
    assert main(["train", "export", str(data), "--to", "verifiers", "-o", str(tmp_path), "--limit", "3"]) == 0
    source = (tmp_path / "icr_retrieval" / "__init__.py").read_text()
    compile(source, "package", "exec")
    assert (
        'name = "icr-retrieval"' in (tmp_path / "pyproject.toml").read_text() and "class IcrTaskset" in source
    )


def test_the_search_environment_finds_gold_and_gives_our_reward(data: Path, tmp_path: Path) -> None:
    assert main(["train", "export", str(data), "--to", "trl-env", "-o", str(tmp_path)]) == 0
    found = 0
    for row in store.read(tmp_path / "train.parquet"):
        env = trl_env.search_environment("ao")()
        env.reset(**row)
        shown = env.search(row["question"])
        found += any(f"[DOC {i}]\n" in shown for i in row["gold_ids"])
        assert env.get_reward() == 0.0
        env.answer(f"{row['answers'][0]} or Marianne Lyon")
        assert env.get_reward() == 0.0
        env.answer(row["answers"][0])
        assert env.get_reward() == 1.0 and env.searches == 1
    assert found > 12
    row["answers"], row["question"] = ["Answer Me, My Love"], "Which song is it?"
    env.reset(**row)
    env.answer("Answer Me, My Love")  # a word of the answer is no marker
    assert env.get_reward() == 1.0


def test_the_search_environment_asks_for_what_its_reward_reads(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("datasets", reason="rows are a dataset of datasets")
    args = ["train", "export", str(data), "--to", "trl-env", "--reward", "idq", "-o"]
    assert main([*args, str(data)]) == 2 and "would be overwritten" in capsys.readouterr().err
    assert main([*args, str(tmp_path)]) == 0 and "train.parquet', 'idq')" in capsys.readouterr().out
    for reward, asked in (("ao", ""), ("id", "[DOC 3]"), ("idc", "Relevant documents:"), ("idq", "Quote 1:")):
        prompt = trl_env.rows(tmp_path / "train.parquet", reward)[0]["prompt"][0]["content"]
        assert asked in prompt and ("[DOC" in prompt) == (reward != "ao")


def test_what_an_export_cannot_make_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for to in ("trl-env", "verifiers", "verl"):
        assert main(["train", "export", str(tmp_path), "--to", to, "-o", str(tmp_path / "out")]) == 2
        assert "no file" in capsys.readouterr().err
    alone = tmp_path / "alone"
    assert main(["train", "data", "--synth", "4", "--length", "512", "--dev", "0", "-o", str(alone)]) == 0
    assert main(["train", "export", str(alone), "--to", "verl", "-o", str(tmp_path / "out")]) == 2
    assert "needs held-out rows" in capsys.readouterr().err
    args = ["train", "export", str(data), "--to", "verl", "--reward", "hybrid", "-o", str(tmp_path / "out")]
    assert main([*args, "--preset", "paper_code"]) == 2
    assert "has no reward 'hybrid'" in capsys.readouterr().err
    assert main(args) == 0
    row = next(iter(store.read(tmp_path / "out" / "train.verl.parquet")))
    first = next(iter(store.read(data / "train.parquet")))
    assert row["extra_info"]["reward"] == "hybrid" and row["prompt"] == formats.messages(first, "ao")
    args = ["train", "export", str(data), "--to", "trl-env", "--preset", "paper_code", "-o", str(tmp_path)]
    assert main(args) == 0 and "search_environment('ao', 'paper_code')" in capsys.readouterr().out


def test_rows_for_verl_are_fitted(data: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="prompts are counted with a tokenizer")
    import trainkit

    root = trainkit.make(tmp_path)
    args = ["train", "export", str(data), "--to", "verl", "--reward", "id", "-o", str(tmp_path / "out")]
    assert main([*args, "--model", str(root / "base"), "--max-prompt-length", "900"]) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(root / "base")
    rows = list(store.read(tmp_path / "out" / "train.verl.parquet"))
    sizes = [
        len(
            tokenizer.apply_chat_template(r["prompt"], add_generation_prompt=True, tokenize=True)["input_ids"]
        )
        for r in rows
    ]
    assert rows and max(sizes) <= 900 and min(sizes) > 200
    for r in rows:
        truth = r["reward_model"]["ground_truth"]
        text = r["prompt"][-1]["content"]
        assert all(
            f"[DOC {i}]\n{d}" in text for i, d in zip(truth["gold_ids"], truth["gold_docs"], strict=True)
        )


def test_a_judged_reward_reaches_verl_asynchronously(data: Path) -> None:
    from icr_tasks.training.rewards.for_verl import compute_score_async

    row = next(iter(store.read(data / "train.parquet")))
    record = formats.verl(row, "judge")
    verdict = "".join(f"\\boxed{{Criterion {i}: 1}}\n" for i in (1, 2, 3))

    async def both() -> list[dict[str, float]]:
        given = {"reward": "judge", "ask": lambda prompts: [verdict] * len(prompts)}
        text = f"The answer is: {row['answers'][0]}"
        one = [
            compute_score_async(
                "x", text, record["reward_model"]["ground_truth"], record["extra_info"], **given
            )
        ]
        return await asyncio.gather(
            *one,
            *[
                compute_score_async(
                    "x", "", record["reward_model"]["ground_truth"], record["extra_info"], **given
                )
            ],
        )

    assert [s["score"] for s in asyncio.run(both())] == [4.0, 3.0]
    assert "compute_score_async" in verl.command(Path("data"), "judge", "paper")


def test_the_recipe_composes_against_the_installed_verl() -> None:
    pytest.importorskip("hydra", reason="verl's recipe is composed with hydra")
    found = importlib.util.find_spec("verl")  # its configs are files; verl itself would import ray
    if found is None or not found.submodule_search_locations:
        pytest.skip("verl is not installed (it has an environment of its own)")
    from hydra import compose, initialize_config_dir

    from icr_tasks.training.config import SHIPPED

    own = Path(next(iter(found.submodule_search_locations))) / "trainer" / "config"
    with initialize_config_dir(str(SHIPPED / "verl"), version_base=None):
        composed = compose(
            "ulysses4",
            overrides=["custom_reward_function.path=x", f"hydra.searchpath=[file://{own}]"],
        )
    assert composed.actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size == 4
    assert composed.data.max_prompt_length == 32768 and composed.algorithm.adv_estimator == "grpo"
