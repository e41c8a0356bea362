"""Engine level: vLLM's own server with SmolLM2, started by `icr judge serve`: it judges a log, continues a message
that was begun, and gives icr-api the answers that vLLM gives in the process."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_contract import lm_eval, results
from test_engine_vllm import CPU, ENGINE, samples, smollm2

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
__all__ = ["smollm2"]  # a fixture
ICR = str(Path(sys.executable).parent / "icr")


@pytest.fixture(scope="module")
def served(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("openai")
    log = tmp_path_factory.mktemp("served") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        ICR,
        "judge",
        "serve",
        "--model",
        str(smollm2),
        "--name",
        "judge",
        "--port",
        str(port),
        "--max-model-len",
        "4096",
    ]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **CPU}, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(500):
            try:
                urllib.request.urlopen(f"{url}/models", timeout=2).read()
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(1)
        else:
            pytest.fail(log.read_text()[-3000:])
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_a_logged_run_is_judged_by_a_real_server(served: str, replica: Path, tmp_path: Path) -> None:
    """The scores mean nothing; that each answer has one stored raw reply and one outcome does."""
    data = {"allow_partial": True, "questions_file": "loong_replica.jsonl"}
    env = {"ICR_DATA_DIR": str(replica), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    run = lm_eval("oracle", ("icr_loong_fin",), tmp_path / "out", data, "--limit", "4", env=env)
    assert run.returncode == 0, run.stderr[-2000:]
    store = tmp_path / "verdicts.sqlite"
    metadata = {
        **data,
        "judge_base_url": served,
        "judge_model": "judge",
        "judge_max_tokens": 60,
        "judge_store": str(store),
    }
    metadata |= {"judge_timeout": 250}
    samples = ("--limit", "4", "--model_args", f"samples={tmp_path / 'out'}")
    run = lm_eval("icr-replay", ("icr_loong_fin",), tmp_path / "judged", metadata, *samples, env=env)
    assert run.returncode == 0, run.stderr[-3000:]
    found = results(tmp_path / "judged")["icr_loong_fin"]
    assert found["judge_parsed,none"] + found["judge_failed,none"] == 1.0
    config = json.loads(next((tmp_path / "judged").rglob("results_*.json")).read_text())["configs"][
        "icr_loong_fin"
    ]
    assert config["metadata"]["icr"]["judge"] == {"model": "judge", "revision": "", "rubric": "loong-1"}
    assert config["metadata"]["icr"]["judged"]["n"] == 4
    import sqlite3

    rows = sqlite3.connect(store).execute("SELECT key, reply FROM replies").fetchall()
    assert len({key for key, _ in rows}) == 4 and all(reply for _, reply in rows)


def test_check_shows_what_a_judge_says(served: str) -> None:
    command = [ICR, "judge", "check", "--base-url", served, "--model", "judge", "--max-tokens", "40"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode in (0, 3) and "---" in run.stdout, run.stderr[-1000:]
    command[-3] = "no-such-model"
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 3 and "does not know this path or model" in run.stderr


# ---- the same server as an evaluated model ---------------------------------------------------------------


def test_the_final_message_is_continued(served: str, smollm2: Path) -> None:
    """A begun answer is gone on with: what the chat gives is what a completion of the same text gives."""
    from transformers import AutoTokenizer

    from icr_tasks.engines.served.model import IcrAPI

    model = IcrAPI(model="judge", base_url=served)
    assert model.listing.continues
    asked = [{"role": "user", "content": "Name the capital of France."}]
    begun = [*asked, {"role": "assistant", "content": "The capital city of France is called"}]
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    text = tokenizer.apply_chat_template(begun, tokenize=False, continue_final_message=True)
    assert text.endswith("France is called")  # no turn is closed, none is opened

    def ask(prompt: Any) -> tuple[str, int]:
        request = SimpleNamespace(
            args=(prompt, {"max_gen_toks": 8, "temperature": 0}), task_name="t", doc_id=0, found={}
        )
        [said] = model.generate_until([request], disable_tqdm=True)
        return said, request.found["usage"]["tokens_in"]

    continued, n_tokens = ask(model.apply_chat_template(begun))
    n_text = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert n_tokens == n_text and continued.strip()
    assert continued.split() == ask(text)[0].split()
    closed, n_closed = ask(model.apply_chat_template([*begun, *asked]))
    assert (
        n_closed > n_text and closed != continued
    )  # without it the turn is closed, and another one answered


def test_a_setting_that_begins_the_answer_on_lm_evals_chat_engine(served: str, tmp_path: Path) -> None:
    """`gold` begins the assistant's turn: lm-eval's chat engine, icr-api and rendered text say the same."""
    common = ("--limit", "3", "--gen_kwargs", "max_gen_toks=16", "--apply_chat_template")
    metadata = {"setting": "gold", "tokenizer": "none"}
    said = {}
    for engine, address in (
        ("local-chat-completions", f"{served}/chat/completions"),
        ("icr-api", served),
    ):
        args = ("--model_args", f"model=judge,base_url={address}", *common)
        run = lm_eval(engine, ("icr_synth_rag_512",), tmp_path / engine, metadata, *args)
        assert run.returncode == 0, run.stderr[-3000:]
        said[engine] = {s["doc"]["id"]: s["filtered_resps"][0] for s in samples(tmp_path / engine)}
    assert len(said["icr-api"]) == 3 and said["icr-api"] == said["local-chat-completions"]


def test_item_scores_of_a_server_are_those_of_vllm_in_the_process(
    served: str, smollm2: Path, tmp_path: Path
) -> None:
    names, common = ("icr_synth_rag_512", "icr_synth_short_256"), ("--limit", "8", "--apply_chat_template")
    common += ("--gen_kwargs", "max_gen_toks=24")
    counted = {"tokenizer": str(smollm2)}
    args = ("--model_args", f"model=judge,base_url={served},store={tmp_path / 'store'}", *common)
    run = lm_eval("icr-api", names, tmp_path / "served", counted, *args)
    assert run.returncode == 0, run.stderr[-3000:]
    engine = ENGINE.replace("8192", "4096")
    args = ("--model_args", f"pretrained={smollm2},{engine}", "--batch_size", "auto", *common)
    run = lm_eval("vllm", names, tmp_path / "here", counted, *args, env=CPU)
    assert run.returncode == 0, run.stderr[-3000:]

    def rows(folder: str) -> dict[str, tuple[float, str]]:
        found = samples(tmp_path / folder)
        prompts = [json.loads(s["arguments"]["gen_args_0"]["arg_0"]) for s in found]
        assert len(found) == 16 and all(p["n_prompt_tokens"] and not p["truncated"] for p in prompts)
        return {s["doc"]["id"]: (s["score"], s["filtered_resps"][0]) for s in found}

    served_rows, here = rows("served"), rows("here")
    assert {k: score for k, (score, _) in served_rows.items()} == {k: score for k, (score, _) in here.items()}
    assert (
        len({score for score, _ in here.values()}) > 1
    )  # some right, some wrong: the comparison says something
    assert sum(served_rows[k][1] == here[k][1] for k in here) >= 15  # float32 sums may part two near tokens
