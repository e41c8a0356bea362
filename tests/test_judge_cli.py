"""`icr judge` and the throughput benchmark."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint

from icr_tasks.cli import main
from icr_tasks.metrics.judge import Case, Judge, JudgeConfig

pytest.importorskip("openai")
ROOT = Path(__file__).resolve().parent.parent


def test_serve_prints_a_command_whose_defaults_the_user_may_replace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 8192}))
    assert main(["judge", "serve", "--model", str(tmp_path), "--print", "--port", "8009"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[words.index("--max-model-len") + 1] == "8192" and words[words.index("--port") + 1] == "8009"
    assert words[words.index("--host") + 1] == "127.0.0.1" and "--enable-prefix-caching" in words
    assert words[words.index("--generation-config") + 1] == "vllm"
    more = ["--seed=7", "--no-enable-prefix-caching", "--tensor-parallel-size", "2"]
    assert main(["judge", "serve", "--model", "some/hub-model", "--print", *more]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[words.index("--max-model-len") + 1] == "16384" and "--enable-prefix-caching" not in words
    assert (
        "--seed=7" in words
        and "--seed" not in words
        and words[words.index("--tensor-parallel-size") + 1] == "2"
    )


def test_check_and_replies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeEndpoint(lambda p: "fine\nRating: [[90]]") as server:
        assert main(["judge", "check", "--base-url", server.url, "--model", "m"]) == 0
        assert "Rating: [[90]]\n---\nrating 90, score 0.90" in capsys.readouterr().out
    with FakeEndpoint(lambda p: "no number") as server:
        assert main(["judge", "check", "--base-url", server.url, "--model", "m"]) == 3
        assert "no verdict: no [[rating]]" in capsys.readouterr().out
        Judge(JudgeConfig(server.url, "m", store=tmp_path / "v")).score([Case("q", "g", "r", "item7")])
    assert main(["judge", "check", "--base-url", server.url, "--model", "m"]) == 3  # gone
    assert main(["judge", "replies", "--store", str(tmp_path / "v"), "--failed", "--last", "1"]) == 0
    out = capsys.readouterr().out
    assert "item item7  failed: no [[rating]]" in out and out.count("no number") == 1
    assert main(["judge", "replies", "--store", str(tmp_path / "none")]) == 2
    assert main(["judge", "check", "--base-url", "x", "--model", "m"]) == 2
    capsys.readouterr()
    assert main(["judge", "check", "--base-url", "http://x/v1", "--model", "m", "--rubrik", "paper"]) == 2
    assert "unknown option '--rubrik'. Did you mean '--rubric'" in capsys.readouterr().err


def test_check_takes_every_option_of_a_judge(capsys: pytest.CaptureFixture[str]) -> None:
    """A judge that refuses `temperature` and `max_tokens` can be tried before it is used."""
    refusal = '{"error":{"message":"Unsupported parameter: temperature","param":"temperature"}}'

    def strict(prompt: str, nth: int) -> tuple[int, str, dict[str, str]] | None:
        return (400, refusal, {}) if {"temperature", "max_tokens"} & server.bodies[-1].keys() else None

    with FakeEndpoint(lambda p: "Rating: [[90]]", fault=strict) as server:
        command = ["judge", "check", "--base-url", server.url, "--model", "m"]
        assert main(command) == 3
        assert "Unsupported parameter" in capsys.readouterr().err
        extra = 'judge_extra={"temperature":null,"max_tokens":null,"max_completion_tokens":99}'
        assert main([*command, "--option", extra, "--option", "judge_retries=0"]) == 0
        assert server.bodies[-1]["max_completion_tokens"] == 99
        for wrong, words in (
            ("judge_extra={", "not valid JSON"),
            ("judge_extra", "write NAME=VALUE"),
            ("judge_extre={}", "Did you mean 'judge_extra'"),
        ):
            assert main([*command, "--option", wrong]) == 2
            assert words in capsys.readouterr().err


def test_ten_times_faster_than_serial_and_nothing_twice() -> None:
    """The benchmark as documented: 100 items, 100 ms, planned 429, 503 and garbage. Two tries: the machine
    may be busy."""
    command = [sys.executable, str(ROOT / "speed" / "judge_throughput.py"), "--json"]
    for _ in range(2):
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert run.stdout, run.stderr[-2000:]
        found = json.loads(run.stdout)
        assert [found[k]["right"] for k in ("serial", "concurrent", "again")] == [100] * 3
        assert (
            found["again"]["calls"] == 0
            and found["concurrent"]["calls"] == 150
            and found["concurrent"]["peak"] <= 32
        )
        if found["speedup"] >= 10:
            assert run.returncode == 0
            return
    pytest.fail(f"only {found['speedup']} times faster")
