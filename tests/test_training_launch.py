"""Every shipped config and study from its documented command line to the point where a model would be
loaded."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl", reason="training needs trl (extra [train])")
import trainkit

from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.training import checkpoint, launch, plan, prepare, trainers
from icr_tasks.training import config as configs
from icr_tasks.training.data import store
from icr_tasks.training.rows import Report
from icr_tasks.training.study import spec

RUNS = sorted(p.name for p in configs.SHIPPED.glob("*.yaml") if not p.name.startswith("_"))
STUDIES = sorted(p.name for p in spec.SHIPPED.glob("*.yaml") if not p.name.startswith("_"))
JUDGE = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and data as `icr train data` makes them, under the names the shipped files
    use."""
    root = trainkit.make(tmp_path_factory.mktemp("launch"), n=16)
    lines = []
    for domain in ("hotpotqa", "2wiki", "medical"):
        for i in range(20):
            text = f"The {domain} thing number {i} is called Answer {domain} {i} by the people who know it."
            lines.append(
                {
                    "id": f"{domain}{i}",
                    "dataset": domain,
                    "domain": "medical" if domain == "medical" else "wikipedia",
                    "question": f"What is {domain} thing {i} called?",
                    "answers": [f"Answer {domain} {i}"],
                    "evidence": [text],
                    "documents": [
                        f"Other {domain} things of the year {1900 + j} are not known by any name."
                        for j in range(9)
                    ],
                }
            )
    (root / "records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for number, name in enumerate(("data", "data-16k", "data-mixed")):
        if (root / name).exists():
            (root / name).rename(root / "tiny")
        code = main(
            [
                "train",
                "data",
                "--records",
                str(root / "records.jsonl"),
                "--tokenizer",
                "words",
                "--top-k",
                "9",
                "--tokens",
                "1500",
                "--min-words",
                "5",
                "--seed",
                str(number),
                "-o",
                str(root / name),
            ]
        )
        assert code == 0
    return root


@pytest.mark.parametrize("name", RUNS)
def test_every_shipped_config_is_ready_to_launch(
    name: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    tree = configs.read(Path(name))
    judged = (tree.get("reward") or {}).get("name") in ("judge", "hybrid")
    more = [f"reward.judge={json.dumps(JUDGE)}"] if judged else []
    code = main(
        ["train", "launch", name, "data=data", "output=out", f"model={here / 'base'}", *more, "--dry-run"]
    )
    out = capsys.readouterr()
    assert code == 0, out.err
    words = shlex.split(out.out.strip().splitlines()[-1])
    if "--config_file" in words:
        assert Path(words[words.index("--config_file") + 1]).is_file()
    assert words[-4 - len(more) :][:1] == [name] and not (here / "out").exists()


def test_the_launched_process_is_the_installed_package(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the folder of that name in which one happens to stand, such as a checkout."""
    (tmp_path / "icr_tasks").mkdir()
    (tmp_path / "icr_tasks" / "__init__.py").write_text("raise SystemExit(77)\n")
    monkeypatch.chdir(tmp_path)
    ended: list[int] = []

    def run(words: list[str], env: dict[str, str]) -> SimpleNamespace:
        assert words[:3] == [sys.executable, "-m", "icr_tasks.cli"]
        for given in (env, {k: v for k, v in env.items() if k != "PYTHONSAFEPATH"}):
            ended.append(subprocess.run([*words[:3], "--help"], env=given, capture_output=True).returncode)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(launch, "subprocess", SimpleNamespace(run=run))
    overrides = [
        "devices=1",
        "trl.gradient_accumulation_steps=32",
        f"data={here / 'data'}",
        "output=out",
        f"model={here / 'base'}",
    ]
    assert main(["train", "launch", "sft_ao.yaml", *overrides, "--workers", "1"]) == 0
    assert ended == [0, 77]


@pytest.mark.parametrize("name", STUDIES)
def test_every_shipped_study_is_ready_on_a_real_data_folder(
    name: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    code = main(["train", "study", name, "--check"])
    out = capsys.readouterr()
    assert code == 0, out.err
    study = spec.load(Path(name), here)
    assert all(f"  {arm}: " in out.out for arm in study.arms) and len(study.seeds) >= 3
    if study.launch:
        words = shlex.split(
            next(line for line in out.out.splitlines() if "launch:" in line).partition("launch:")[2]
        )
        assert Path(words[words.index("--config_file") + 1]).is_file()


def test_domains_that_the_data_do_not_have_are_refused(here: Path, tmp_path: Path) -> None:
    options = {"folder": str(here / "data"), "domains": ["hotpotqa", "2wikimultihopqa"]}
    with pytest.raises(IcrError, match="2wikimultihopqa.*Did you mean '2wiki'"):
        spec.rows_of(options, tmp_path)
    with pytest.raises(IcrError, match="2wikimultihopqa.*Did you mean '2wiki'"):
        spec.make(options, tmp_path / "made")
    assert spec.rows_of(options | {"domains": ["hotpotqa", "2wiki"]}, tmp_path)[0].keys() == {
        "hotpotqa",
        "2wiki",
    }


def test_equal_arms_are_refused(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from icr_tasks.training.study import run

    monkeypatch.chdir(here)
    study: dict[str, Any] = {
        "name": "same",
        "base": str(here / "base"),
        "control": "a",
        "seeds": [0, 1, 2],
        "evaluate": {"tasks": ["icr_x"]},
        "common": {"extends": "sft_ao.yaml", "devices": 1},
        "arms": {
            "a": {"data": {"folder": "data", "domains": ["medical"]}},
            "b": {"data": {"folder": "data", "domains": ["medical"]}},
        },
    }
    path = tmp_path / "same.yaml"
    path.write_text(json.dumps(study))
    with pytest.raises(IcrError, match="'a' and 'b' train on the same rows"):
        spec.load(path, tmp_path)
    # other words, the same rows: only the data can tell
    study["arms"]["b"]["data"] = {"folder": "data", "domains": ["medical", "medical"]}
    path.write_text(json.dumps(study))
    with pytest.raises(IcrError, match="'a' and 'b' train on the same rows"):
        run.main([str(path), "--check"])


@pytest.mark.parametrize(
    ("kind", "override", "says"),
    [
        ("grpo", "trl.loss_type=drgrpo", "Did you mean 'dr_grpo'"),
        ("grpo", "trl.lr_scheduler_type=constnat", "Did you mean 'constant'"),
        ("grpo", "trl.scale_rewards=grp", "value of trl.scale_rewards"),
        ("sft", "trl.loss_type=nnl", "Did you mean 'nll'"),
        ("sft", "trl.packing_strategy=bdf", "Did you mean 'bfd'"),
        ("grpo", "trl.fp16=true", "exclude each other"),
        ("grpo", "trl.vllm_tensor_parallel_size=3", "does not divide devices 8"),
        ("grpo", "trl.attn_implementation=flash_attention_2", "model_init_kwargs"),
        ("grpo", "learning_rate=1e-6", "set trl.learning_rate"),
        ("grpo", "devices=1", "gradient_accumulation_steps=160 trl.steps_per_generation=640 keeps"),
        (
            "grpo",
            "devices=3",
            "gradient_accumulation_steps=55 trl.steps_per_generation=220 comes nearest .103% of",
        ),
        ("grpo", "trl.eval_strategy=steps", "trl.per_device_eval_batch_size=5"),
        ("grpo", "trl.chat_template_kwargs={}", "top level"),
    ],
)
def test_what_would_kill_a_run_later_is_refused_at_once(kind: str, override: str, says: str) -> None:
    with pytest.raises(IcrError, match=says):
        configs.load(f"{kind}_ao.yaml", [override])


def test_evaluation_needs_held_out_rows_that_are_not_trained_on(tmp_path: Path) -> None:
    root = trainkit.make(tmp_path)
    config = trainkit.config(root, "sft", "out", trl={"eval_strategy": "steps", "eval_steps": 1})
    with pytest.raises(IcrError, match="needs held-out rows"):
        prepare.check(config)
    rows = list(store.read(root / "data" / "train.parquet"))
    store.write(root / "data" / "dev.parquet", rows[:2], store.ROW)
    with pytest.raises(IcrError, match="2 rows of .*train.parquet are in dev.parquet too"):
        prepare.check(config)


def test_held_out_reward_and_loss_are_measured_while_a_run_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On rows of dev.parquet alone; and a run of a random model, which cannot learn, says so once."""
    from transformers import AutoTokenizer

    root = trainkit.make(tmp_path, n=16)
    rows = list(store.read(root / "data" / "train.parquet"))
    store.write(root / "data" / "train.parquet", rows[4:], store.ROW)
    store.write(root / "data" / "dev.parquet", rows[:4], store.ROW)
    evaluated = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 2}
    sft = trainkit.config(root, "sft", "sft", dev=3, trl=evaluated)
    trainers.train_sft(sft)
    logged = [json.loads(line) for line in (root / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in logged if "eval_loss" in r] == [2, 3]
    grpo = trainkit.config(root, "grpo", "grpo", dev=3, trl=evaluated | {"eval_steps": 3})
    trainers.train_grpo(grpo)
    logged = [json.loads(line) for line in (root / "grpo" / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["eval_reward"]) for r in logged if "eval_reward" in r] == [(3, 0.0), (6, 0.0)]
    assert capsys.readouterr().out.count("this run cannot learn: every reward is 0") == 1
    assert len(prepare.dev_rows(sft, AutoTokenizer.from_pretrained(sft.model))) == 3


def test_rows_counted_with_the_trained_model_s_tokenizer_are_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    root = trainkit.make(tmp_path)
    config = trainkit.config(root, "grpo", "out")
    path = prepare.train_file(config)
    assert not prepare.counted(path, config)
    manifest = store.Manifest.load(path.parent)
    store.write(path, [r | {"n_tokens": 300} for r in list(store.read(path))], store.ROW)
    assert not manifest.wrote(path)
    manifest.record("pack", "key", {path.name: 8}, options={"tokenizer": config.model})
    assert prepare.counted(path, config)
    # the released code's instructions are longer than the five that were counted
    assert not prepare.counted(path, replace(config, prompt="ao_code"))
    assert not prepare.counted(path.with_name("dev.parquet"), config)
    asked: list[str] = []
    measured = prepare.counter

    def counter(*given: Any) -> Any:
        one, many = measured(*given)
        return lambda row: asked.append(row["id"]) or one(row), many

    monkeypatch.setattr(prepare, "counter", counter)
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    assert len(list(prepare.rows(config, path, tokenizer, Report()))) == 8 and not asked
    config = trainkit.config(
        root, "grpo", "out", max_prompt_length=290
    )  # above it the noted length is too coarse
    list(prepare.rows(config, path, tokenizer, Report()))
    assert len(set(asked)) == 8


def test_a_run_without_a_step_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    given = ["grpo_ao.yaml", "data=tiny", "output=out", f"model={here / 'base'}"]
    for words in (["grpo", *given, "--check"], ["grpo", *given, "--plan"], ["launch", *given]):
        assert main(["train", *words]) == 2
        out = capsys.readouterr()
        assert "rows do not fill one rollout of 256 prompts; make more rows" in out.err
        assert "would start" not in out.out and not (here / "out").exists()


def test_the_plan_says_what_a_run_does(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configs.load(
        "grpo_ao.yaml", [f"data={here / 'tiny'}", "model=Qwen/Qwen2.5-7B-Instruct-1M", "limit=16"]
    )
    shape = plan.shape(config.model)
    assert shape is not None and 6.5e9 < shape.parameters < 8e9
    text = plan.text(config, here / "tiny" / "train.parquet")
    assert "256 prompts x 5 completions" in text and "4 update(s) of 320 completions" in text
    assert "no step at all" in text and "its name was not checked" in text and "GPU hours" in text
    with monkeypatch.context() as at:  # a folder here is no name of the hub's
        at.chdir(here)
        (here / "Qwen" / "mine").mkdir(parents=True)
        local = replace(config, model="Qwen/mine")
        assert "its name was not checked" not in plan.text(local, here / "tiny" / "train.parquet")


def test_a_launch_with_two_processes_goes_from_the_command_to_a_resumed_checkpoint(tmp_path: Path) -> None:
    root = trainkit.make(tmp_path, n=16)
    for kind in ("sft", "grpo"):
        config = trainkit.config(
            root, kind, f"out-{kind}", devices=2, trl={"per_device_train_batch_size": 2, "save_steps": 2}
        )
        path = tmp_path / f"{kind}.yaml"
        path.write_text(config.dump())
        command = [sys.executable, "-m", "icr_tasks.cli", "train", "launch", str(path), "--accelerate", "cpu"]
        first = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=tmp_path)
        assert first.returncode == 0, first.stderr[-2000:]
        run = root / f"out-{kind}"
        last = checkpoint.latest(run)
        assert last is not None and (last / "model.safetensors").is_file()
        weights = (last / "model.safetensors").read_bytes()
        if kind == "sft":
            last.rename(tmp_path / "kept")
            again = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=tmp_path)
            assert again.returncode == 0 and "continuing from" in again.stdout, again.stderr[-2000:]
            assert (last / "model.safetensors").read_bytes() == weights


def test_a_checkpoint_has_the_dtype_of_its_base_and_resumes_in_full_precision(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    root = trainkit.make(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.bfloat16)
    model.save_pretrained(root / "base")
    config = trainkit.config(root, "sft", "out", keep_states=1, epochs=2)
    last = trainers.train_sft(config)
    kinds = {t.dtype for t in load_file(last / "model.safetensors").values()}
    assert kinds == {torch.bfloat16} and json.loads((last / "config.json").read_text())["dtype"] == "bfloat16"
    assert {t.dtype for t in load_file(last / checkpoint.MASTER / "model.safetensors").values()} == {
        torch.float32
    }
    assert AutoModelForCausalLM.from_pretrained(last).dtype == torch.bfloat16
    first = checkpoint.all_of(root / "out")[0]
    assert first != last and not checkpoint.resumable(first) and not (first / checkpoint.MASTER).exists()
    assert (first / "model.safetensors").is_file() and checkpoint.resumable(last)
    assert trainers.train_sft(config) == last  # goes on from master/, nothing left to do


def test_rows_are_prepared_once_on_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = trainkit.make(tmp_path, n=40)
    monkeypatch.setattr(prepare, "_SHARE", 10)
    config = trainkit.config(root, "grpo", "out")
    path = prepare.train_file(config)
    prepare.ready(config, path, workers=3)
    from datasets import load_from_disk

    many = load_from_disk(str(root / "out" / "prepared"))["id"]
    one = trainkit.config(root, "grpo", "one")
    prepare.ready(one, path, workers=1)
    assert list(many) == list(load_from_disk(str(root / "one" / "prepared"))["id"]) and len(many) == 40
    assert "40 rows" in json.loads((root / "out" / "prepared" / "report.json").read_text())["text"]


def test_launch_names_are_resolved() -> None:
    words = launch.resolved(
        shlex.split("accelerate launch --num_processes 8 --config_file fsdp2.yaml -m icr_tasks.cli")
    )
    assert words[0] == sys.executable and Path(words[words.index("--config_file") + 1]).is_file()
    assert launch.accelerate_file("zero3").name == "deepspeed_zero3.yaml"
    with pytest.raises(IcrError, match="Did you mean 'fsdp2'"):
        launch.accelerate_file("fsdp")


def test_a_run_that_cannot_learn_says_so_once() -> None:
    watch = trainers.Watch()
    dead = {"reward": 0.0, "completions/clipped_ratio": 1.0, "frac_reward_zero_std": 1.0}
    said = [watch.look(dead) for _ in range(6)]
    assert [len(s) for s in said] == [0, 0, 2, 0, 0, 0]
    assert not any(trainers.Watch().look({"reward": 0.5, "frac_reward_zero_std": 0.2}) for _ in range(5))
    # a better step and then three bad ones again: said already; evaluations in between are no steps
    watch.look({"reward": 0.5})
    assert not any(watch.look(dead) for _ in range(4))
    watch = trainers.Watch()
    said = [watch.look(logs) for _ in range(3) for logs in (dead, {"eval_reward": 0.0, "eval_loss": 1.0})]
    assert [len(s) for s in said] == [0, 0, 0, 0, 2, 0]
