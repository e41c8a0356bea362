"""No credential reaches anything written: planted through every command, then searched for in every byte."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_endpoint import FakeEndpoint

from icr_tasks.cli import main
from icr_tasks.credentials import found_secrets, redact_text, redacted, secret_key
from icr_tasks.leaderboard.ledgers.collect import collect
from icr_tasks.schema import speed_only

PLANTED = {
    "user": "plantedUSER0",
    "password": "plantedPASS1",
    "query": "plantedQUERY2",
    "header": "plantedHEADER3",
    "api_key": "plantedAPIKEY4",
    "auth_token": "plantedAUTH5",
    "judge_key": "plantedJUDGE6",
    "judge_password": "plantedJPASS7",
    "judge_query": "plantedJQUERY8",
    "extra": "sk-planted9ABCDEFGHIJ",
    "hub": "hf_planted10ABCDEFGHIJ",
    "cookie": "plantedCOOKIE11",
}
TASK = "icr_synth_rag_512"


def leaks(root: Path) -> dict[str, list[str]]:
    """Planted secret -> files below root that hold it, as it is, in base64, or inside gzip; file names
    count."""
    found: dict[str, list[str]] = {}
    for path in root.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        for name, secret in PLANTED.items():
            coded = base64.b64encode(secret.encode())[:-4]
            if secret.encode() in data or coded in data or secret in str(path.relative_to(root)):
                found.setdefault(name, []).append(str(path.relative_to(root)))
    return found


def model_args(url: str) -> dict[str, Any]:
    """Arguments of lm_eval's own client for a local server, with a credential in each place that takes
    one."""
    host = url.removeprefix("http://")
    return {
        "model": "m",
        "base_url": f"http://{PLANTED['user']}:{PLANTED['password']}@{host}/chat/completions?key={PLANTED['query']}",
        "header": {"Authorization": f"Bearer {PLANTED['header']}", "Cookie": f"s={PLANTED['cookie']}"},
        "api_key": PLANTED["api_key"],
        "auth_token": PLANTED["auth_token"],
        "label": f"made with {PLANTED['extra']} and {PLANTED['hub']}",
        "num_concurrent": 1,
        "max_retries": 1,
        "tokenizer_backend": "none",
        "max_length": 4096,
    }


def judge(url: str) -> dict[str, Any]:
    """A judge's options with credentials; the task has no judge, so it is never asked."""
    host = url.removeprefix("http://")
    address = f"http://u:{PLANTED['judge_password']}@{host}?key={PLANTED['judge_query']}"
    return {
        "judge_base_url": address,
        "judge_model": "j",
        "judge_api_key": PLANTED["judge_key"],
        "tokenizer": "none",
    }


def clean(text: str) -> bool:
    return not any(secret in text for secret in PLANTED.values())


def test_nothing_planted_through_lm_eval_collect_and_board_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, results, board = tmp_path / "out", tmp_path / "results", tmp_path / "board"
    with FakeEndpoint(lambda prompt: "The answer is: x") as server:
        command = [sys.executable, "-P", "-m", "lm_eval", "--model", "local-chat-completions"]
        command += ["--model_args", json.dumps(model_args(server.url)), "--tasks", TASK, "--limit", "2"]
        command += ["--metadata", json.dumps({**judge(server.url), "setting": "none"})]
        command += ["--apply_chat_template", "--log_samples", "--output_path", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, env={**os.environ})
    assert done.returncode == 0, done.stderr[-3000:]
    assert PLANTED["cookie"] in json.dumps(server.headers)  # sent, and not written:
    assert clean(done.stdout) and clean(done.stderr)
    assert main(["collect", str(out), "-o", str(results)]) == 0
    assert main(["board", str(results), "-o", str(board)]) == 0
    assert main(["board", str(results)]) == 0
    assert main(["check", str(results)]) in (0, 1)
    shown = capsys.readouterr()
    assert clean(shown.out) and clean(shown.err)
    assert leaks(tmp_path) == {}
    assert len(list(results.rglob("run.json"))) == 1 and any(board.rglob("*.html"))


def test_nothing_planted_in_a_study_is_written_also_by_failing_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with FakeEndpoint(lambda prompt: "The answer is: x") as server:
        args = model_args(server.url)
        gone = {
            **args,
            "base_url": args["base_url"].replace(server.url.removeprefix("http://"), "127.0.0.1:9/v1"),
        }
        wrong = {**args, "tokenizer_backend": "huggingface", "tokenizer": f"/no/{PLANTED['extra']}"}
        engine = {"model": "local-chat-completions", "apply_chat_template": True}
        body = {
            "models": [
                {"name": name, "model_args": given, **engine}
                for name, given in (("good", args), ("gone", gone), ("wrong", wrong))
            ],
            "tasks": [TASK],
            "settings": ["none"],
            "limit": 2,
            "metadata": judge(server.url),
            "out": str(tmp_path / "out"),
        }
        study = tmp_path / "study.yaml"
        study.write_text(yaml.safe_dump(body))
        assert main(["sweep", str(study)]) == 1
    assert main(["status", str(study)]) == 0
    shown = capsys.readouterr()
    assert clean(shown.out) and clean(shown.err) and clean(caplog.text)
    assert leaks(tmp_path / "out") == {}
    records = [json.loads(p.read_text()) for p in (tmp_path / "out" / "cells").glob("*.json")]
    assert sorted(r["status"] for r in records) == ["done", "error", "partial"]


def lm_eval_output(folder: Path, args: Any, stamp: str = "2026-01-01T00-00-00.000000") -> Path:
    """What lm_eval without our start-up hook writes: arguments as they were given."""
    folder.mkdir(parents=True)
    sheet = {"benchmark": "synth", "dataset": "rag", "length": "512", "metric": "em", "data_revision": "1"}
    config = {"metadata": {"icr": {**sheet, "n_expected": 1}}}
    body = {"config": {"model": "icr-hf", "model_args": args}, "configs": {"t": config}, "versions": {"t": 1}}
    (folder / f"results_{stamp}.json").write_text(json.dumps({**body, "n-samples": {"t": {"original": 1}}}))
    row = {"doc_id": 0, "doc": {"id": "a", "cluster": "a"}, "doc_hash": "0" * 64, "prompt_hash": "1" * 64}
    row |= {"target_hash": "2" * 64, "metrics": ["em"], "em": 1.0, "filtered_resps": ["x"], "arguments": {}}
    (folder / f"samples_t_{stamp}.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def test_collect_redacts_what_a_foreign_lm_eval_wrote_and_check_fails_on_a_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = {"pretrained": "org/m", **model_args("http://host/v1")}
    flat = ",".join(f"{k}={v}" for k, v in args.items() if not isinstance(v, dict))
    for n, given in enumerate((args, flat)):
        [(folder, run)] = collect([lm_eval_output(tmp_path / str(n), given)], tmp_path / f"results{n}")
        assert leaks(folder) == {} and run["fingerprint_inputs"]["model_args"]["base_url"].startswith(
            "http://***@host"
        )
        assert main(["check", str(tmp_path / f"results{n}")]) == 0, capsys.readouterr().out
    path = folder / "run.json"
    whole = json.loads(path.read_text())
    for where in (("fingerprint_inputs", "model_args"), ("versions",), ()):
        for key, value in (*args.items(), ("note", "Bearer " + PLANTED["header"])):
            if redacted({key: value}) == {key: value}:
                continue
            body = json.loads(json.dumps(whole))
            at = body
            for name in where:
                at = at[name]
            at[key] = value
            path.write_text(json.dumps(body))
            assert main(["check", str(tmp_path / "results1")]) == 1, (where, key)
            shown = capsys.readouterr().out
            assert "looks like a secret" in shown and clean(shown)
    path.write_text(json.dumps(whole))
    rows = folder / "items.jsonl.gz"
    rows.write_bytes(gzip.compress(gzip.decompress(rows.read_bytes()).replace(b'"x"', b'"x"') + b"\n"))
    (tmp_path / "results1" / "notes.txt").write_text(f"key: {PLANTED['hub']}\n")
    assert (
        main(["check", str(tmp_path / "results1")]) == 1
        and "notes.txt:1 looks like a secret" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        (n, True)
        for n in ("api_key", "X-Api-Key", "apiKey", "openai_api_key", "token", "hf_token", "auth_token")
    ]
    + [
        (n, True)
        for n in ("Authorization", "bearer", "header", "headers", "password", "client_secret", "cookie")
    ]
    + [(n, True) for n in ("aws_secret_access_key", "proxy_token", "judge_api_key", "credentials", "key")]
    + [
        (n, False)
        for n in ("tokenizer", "eos_token", "think_end_token", "add_bos_token", "max_gen_toks", "env")
    ]
    + [
        (n, False)
        for n in ("judge_api_key_env", "prefix_token_id", "cache_key", "author", "max_tokens", "keys")
    ],
)
def test_a_secret_by_its_name(name: str, secret: bool) -> None:
    assert secret_key(name) is secret
    shown = redacted({name: "abcd"})[name]
    assert (shown == "***") is secret and bool(list(found_secrets({name: "abcd"}))) is secret
    assert speed_only(name) or not secret


@pytest.mark.parametrize(
    "text",
    [
        "Max retries exceeded with url: /v1/chat?key=SEKRET1 (Caused by x)",
        "{'Authorization': 'Bearer SEKRET1'}",
        "Authorization: Bearer SEKRET1",
        '{"api_key": "SEKRET1", "model": "m"}',
        "cannot reach http://me:SEKRET1@host:8000/v1",
        "pretrained=x,auth_token=SEKRET1,dtype=auto",
        "x-api-key: SEKRET1",
        "Incorrect API key provided: sk-SEKRET1abcdefgh.",
        "login hf_SEKRET1abcdefgh failed",
        "Authorization: Token SEKRET1",
        'curl -H "authorization: SEKRET1" http://host/v1',
        "Cookie: session=SEKRET1; theme=dark",
        "password: SEKRET1",
        "icr doctor --api-key SEKRET1 --tasks icr_ci",
        "hf auth login --token 'SEKRET1'",
        *(
            f"the server says {start}SEKRET1abcdefghij"
            for start in ("nvapi-", "xai-", "pplx-", "csk-", "gsk_", "r8_")
        ),
        *(
            f"cannot use {start}SEKRET1abcdefghij."
            for start in ("fw_", "npm_", "rpa_", "tgp_v1_", "wandb_v1_")
        ),
        "ASIASEKRET1ABCDE",
    ],
)
def test_a_secret_by_what_it_looks_like(text: str) -> None:
    assert "SEKRET1" not in redact_text(text) and list(found_secrets(text))
    assert redact_text(redact_text(text)) == redact_text(text) and not list(found_secrets(redact_text(text)))


@pytest.mark.parametrize(
    "text",
    [
        "unknown key: 'setings'. Did you mean 'settings'?",
        "hf_hub_download of sk-learn, risk-averse-with-many-words, hf_transfer",
        "model_args pretrained=Qwen/Qwen3-8B,max_model_len=4096,think_end_token=</think>",
        "see https://docs.example/page#part and http://localhost:8000/v1",
        "the bearer of bad news, basic English",
        "rag@4k,embedder=BAAI/bge-m3; kv:topk@0.05",
        "the password: must be set; no authorization: log in first; unknown key: gen_kwargs2",
        "icr x --token-limit 5 --tokenizer org/m --eos-token eot --api-key-env NAME",
        "a csk-a, an xai-like model, npm_install, fw_8 and r8_x",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact_text(text) == text and not list(found_secrets(text))


def test_there_is_one_list_of_secrets_and_one_of_what_only_changes_speed() -> None:
    root = Path(__file__).resolve().parent.parent
    for path in [
        p for folder in ("icr_tasks", "leaderboard", "training") for p in (root / folder).rglob("*.py")
    ]:
        text = path.read_text(encoding="utf-8")
        if path.name in ("schema.py", "credentials.py"):
            continue
        both = "tensor_parallel_size" in text and "enable_prefix_caching" in text and "download_dir" in text
        assert not both, f"{path}: a second list of options that only change speed; use icr_tasks.schema"
        words = sum(
            f'"{word}"' in text for word in ("api_key", "password", "secret", "authorization", "token")
        )
        assert words < 3, f"{path}: a second list of credentials; use icr_tasks.credentials"


@pytest.mark.parametrize(
    "more",
    [{"in_flight": 32}, {"num_concurrent": 8}, {"timeout": 60}, {"max_retries": 9}, {"header": {"a": "b"}}],
)
def test_speed_changes_no_fingerprint_and_old_ledgers_pair_with_new_ones(
    tmp_path: Path, more: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from icr_tasks.schema import fingerprint, read_head, same_run

    args = {"pretrained": "org/m", "dtype": "float32"}
    [(new, run)] = collect([lm_eval_output(tmp_path / "a", args)], tmp_path / "new")
    [(_, again)] = collect([lm_eval_output(tmp_path / "b", {**args, **more})], tmp_path / "again")
    assert run["fingerprint"] == again["fingerprint"]
    # a ledger of the version before: it counted the option
    old = tmp_path / "old" / new.parent.relative_to(tmp_path / "new")
    body = json.loads((new / "run.json").read_text())
    body["fingerprint_inputs"]["model_args"] |= more
    left = {k: v for k, v in body["fingerprint_inputs"].items() if k not in ("gen_kwargs", "truncation")}
    body["fingerprint"] = fingerprint(left)
    body["a_field_of_another_version"] = {"x": 1}
    old = old / body["fingerprint"]
    old.mkdir(parents=True)
    (old / "run.json").write_text(json.dumps(body))
    (old / "items.jsonl.gz").write_bytes((new / "items.jsonl.gz").read_bytes())
    head = read_head(old / "run.json")
    assert head["fingerprint"] != run["fingerprint"] and same_run(head, run["fingerprint_inputs"])
    assert main(["compare", str(old), str(new)]) == 0
    assert "also different" not in capsys.readouterr().out
    both = tmp_path / "both"
    for folder in (old, new):
        target = both / folder.relative_to(folder.parents[2])
        target.mkdir(parents=True)
        for file in folder.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    assert main(["board", str(both)]) == 0
    assert next(iter(more)) not in capsys.readouterr().out


def test_signs_a_terminal_lacks_end_no_command(tmp_path: Path) -> None:
    collect([lm_eval_output(tmp_path / "a", {"pretrained": "org/µ"})], tmp_path / "r")
    code = "import sys; from icr_tasks.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-P",
        "-c",
        code,
        "collect",
        str(tmp_path / "a"),
        "-o",
        str(tmp_path / "again"),
    ]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0 and "| full |" in done.stdout and "?" in done.stdout, done.stderr
