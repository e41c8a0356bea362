"""Contract level: through lm_eval's real command line an oracle scores 100 and junk 0 on every leaf task at
hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import newbench
import pytest
import tiny
import yaml

from icr_tasks import benchmarks, tasks_dir
from icr_tasks.benchmarks import sheets
from icr_tasks.benchmarks.synth import PASSAGES

ROOT = Path(__file__).parent
REPLICA_TASKS = (
    "icr_helmet_rag_nq_4k",
    "icr_helmet_rag_nq_8k",
    "icr_helmet_rag_nq_16k",
    "icr_helmet_rag_hotpotqa_4k",
    "icr_helmet_rag_hotpotqa_8k",
    "icr_helmet_rag_hotpotqa_16k",
    "icr_helmet_rag_popqa_4k",
    "icr_infbench_mc",
    "icr_infbench_qa",
    "icr_infbench_sum",
    "icr_longbench_v2",
    "icr_longbench_v2_cot",
    "icr_loong_fin",
)
SYNTH_TASKS = tuple(
    f"icr_synth_rag_{length}" for length in PASSAGES if not length.endswith(("256k", "512k", "1M"))
)
HEADLINE = {
    "mc": ("acc", "acc_v1"),
    "qa": ("f1", "subem"),
    "sum": ("rougeLsum", "rougeL"),
    "longbench": ("acc", "parsed"),
}


def lm_eval(
    model: str,
    tasks: tuple[str, ...],
    out: Path,
    metadata: dict[str, object],
    *more: str,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run lm_eval's command line with the scripted models; `-P` keeps the checkout off the path."""
    command = [
        sys.executable,
        "-P",
        str(ROOT / "oracle.py"),
        "--model",
        model,
        "--model_args",
        f"pretrained={model}",
    ]
    command += ["--tasks", ",".join(tasks), "--metadata", json.dumps({"tokenizer": "none", **metadata})]
    command += ["--log_samples", "--output_path", str(out), *more]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=400
    )


def results(out: Path) -> dict[str, dict[str, float]]:
    path = next(out.rglob("results_*.json"))
    return json.loads(path.read_text())["results"]


@pytest.mark.parametrize(("model", "score"), [("oracle", 1.0), ("junk", 0.0)])
def test_every_task_on_real_data(model: str, score: float, replica: Path, tmp_path: Path) -> None:
    metadata = {"allow_partial": True, "questions_file": "loong_replica.jsonl"}
    run = lm_eval(model, REPLICA_TASKS, tmp_path, metadata, env={"ICR_DATA_DIR": str(replica)})
    assert run.returncode == 0, run.stderr[-3000:]
    found = results(tmp_path)
    for task in REPLICA_TASKS:
        kind = next((k for k in HEADLINE if k in task and "helmet" not in task), None)
        if "loong" in task:
            assert found[task]["answered,none"] == 1.0
            continue
        for metric in HEADLINE[kind] if kind else ("subem", "subem_raw", "em", "f1"):
            got = found[task][f"{metric},none"]
            # a summary shares common words with any text, so junk's ROUGE is small, not zero
            assert got == pytest.approx(score, abs=0.05 if metric.startswith("rouge") else 1e-9), (
                task,
                metric,
            )


@pytest.mark.parametrize(("model", "score"), [("oracle", 1.0), ("junk", 0.0)])
def test_every_synth_length(model: str, score: float, tmp_path: Path) -> None:
    run = lm_eval(model, SYNTH_TASKS, tmp_path, {"prompt": "id"}, "--limit", "10")
    assert run.returncode == 0, run.stderr[-3000:]
    found = results(tmp_path)
    for task in SYNTH_TASKS:
        assert found[task]["subem,none"] == score and "cite_f1,none" in found[task]
    sample = json.loads(next(tmp_path.rglob("samples_icr_synth_rag_128k*")).open().readline())
    assert len(json.dumps(sample)) < 5000  # a 128k context leaves no trace in the log
    assert json.loads(sample["arguments"]["gen_args_0"]["arg_0"])["n_chars"] > 300_000


@pytest.mark.parametrize(("model", "score"), [("oracle", 1.0), ("junk", 0.0)])
def test_benchmarks_whose_data_are_built_in_their_shape(
    model: str, score: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    headline = newbench.everything(tmp_path / "data")
    where = {"ICR_DATA_DIR": str(tmp_path / "data")}
    run = lm_eval(
        model, tuple(headline), tmp_path / "out", {"allow_partial": True}, "--limit", "8", env=where
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = results(tmp_path / "out")
    got = {task: found[task][f"{metric},none"] for task, metric in headline.items()}
    assert got == dict.fromkeys(headline, score)


def test_yaml_files_are_current_and_complete() -> None:
    for path, text in sheets.files().items():
        assert (tasks_dir() / path).read_text(encoding="utf-8") == text, (
            f"{path}: run python -m icr_tasks.benchmarks.sheets"
        )
    on_disk = {str(p.relative_to(tasks_dir())) for p in tasks_dir().rglob("*.yaml")}
    assert on_disk == {p for p in sheets.files() if p.endswith(".yaml")}
    names = set()
    for path in tasks_dir().rglob("*.yaml"):
        text = path.read_text(encoding="utf-8").replace("!function ", "")
        config = yaml.safe_load(text)
        name = config.get("task") if isinstance(config.get("task"), str) else config["group"]
        assert name.startswith("icr_") and name not in names
        names.add(name)
        if "metadata" in config and "icr" in config["metadata"]:
            sheet = config["metadata"]["icr"]
            assert sheet["revision"] and sheet["cluster"] and sheet["metric_definition"] and sheet["license"]
    leaves = sum(len(b.tasks) for b in benchmarks.all_benchmarks() if b.origin == "icr_tasks")
    assert (leaves, len(names)) == (141, 184)  # a task that vanishes or appears is meant


def test_bad_input_ends_with_one_clear_error(tmp_path: Path) -> None:
    tiny.tokenizer().save_pretrained(tmp_path / "tiny")
    cases: list[tuple[dict[str, object], str]] = [
        ({"setting": "golden"}, "Did you mean 'gold'"),
        ({"settings": "gold"}, "did you mean 'setting'"),
        ({"prompt": "idd"}, "Did you mean 'id"),
        ({"tokenizer": "/nowhere/at/all"}, "cannot load tokenizer"),
        ({"setting": "kv:fp8"}, "kv_cache_dtype=fp8"),
        ({}, "found none"),
        (
            {"tokenizer": str(tmp_path / "tiny"), "max_model_len": 2100},
            "no item can be sent: the instruction and question alone need",
        ),
    ]
    code = (
        "import json, sys\n"
        "from icr_tasks.harness.run import manager\n"
        "from icr_tasks.errors import IcrError\n"
        "for case in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        task = manager(case).load(['icr_synth_rag_512'])['tasks']['icr_synth_rag_512']\n"
        "        task.build_all_requests(limit=1)\n"
        "        print('no error')\n"
        "    except IcrError as error:\n"
        "        print(str(error).splitlines()[0])\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", code, json.dumps([c for c, _ in cases])],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.strip().splitlines()
    assert len(lines) == len(cases)
    for line, (_, expected) in zip(lines, cases, strict=True):
        assert expected in line


def test_unwritable_output_and_missing_data_exit_non_zero(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    run = lm_eval("oracle", ("icr_synth_rag_512",), blocked / "out", {})
    assert run.returncode != 0 and "cannot be written" in run.stderr
    run = lm_eval(
        "oracle", ("icr_helmet_rag_nq_64k",), tmp_path / "out", {}, env={"ICR_DATA_DIR": str(tmp_path)}
    )
    assert run.returncode != 0 and "icr data fetch helmet --datasets nq --lengths 64k" in run.stderr
