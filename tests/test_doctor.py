"""`icr doctor`: what was named and cannot be used ends in exit 1, and the next command can be typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_served import FakeServed

from icr_tasks import plugins
from icr_tasks.cli import health, main
from icr_tasks.errors import install_hint


def doctor(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict]:
    code = main(["doctor", "--json", *args])
    return code, json.loads(capsys.readouterr().out)


def test_everything_is_told_and_nothing_named_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = doctor(capsys)
    assert code == 0 and told["usable"] and told["schema"] == 1
    assert {"engines", "gpus", "extras", "data", "plugins", "machine", "next"} <= set(told)
    assert {e["name"] for e in told["extras"]} >= {"vllm", "hf", "rag", "api", "judge", "train"}
    assert "icr_" in told["next"] or told["next"].startswith("pip install")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "next: " in said and "engines" in said and "icr-api" in said


def test_a_named_judge_or_endpoint_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServed(model="judge-model", window=32_000) as server:
        code, told = doctor(capsys, "--judge", server.url)
        assert code == 0 and "serves judge-model, window 32,000" in told["named"][0]["detail"]
        code, told = doctor(capsys, "--judge", server.url, "--judge-model", "other")
        assert code == 1 and "not other" in told["named"][0]["detail"]
        code, told = doctor(capsys, "--endpoint", server.url, "--model", "judge-model")
        assert code == 0 and f"base_url={server.url}" in told["next"] and "--model icr-api" in told["next"]
        wrong = server.url.removesuffix("/v1") + "/elsewhere"
        server.models = lambda headers: (200, "<html>a web page</html>", {})  # type: ignore[method-assign]
        code, told = doctor(capsys, "--endpoint", wrong)
        assert code == 1 and "lists no models" in told["named"][0]["detail"] and "/v1" in told["next"]
        address = server.url
    code, told = doctor(capsys, "--judge", address)
    assert code == 1 and "no server at" in told["named"][0]["detail"]
    secret = "Zx9-very-secret"
    with FakeServed(key=secret) as server:
        code, told = doctor(capsys, "--endpoint", server.url)
        assert code == 1 and told["named"][0]["detail"].endswith("set $ICR_API_KEY")
        monkeypatch.setenv("ICR_API_KEY", secret)
        code = main(["doctor", "--endpoint", server.url.replace("http://", f"http://me:{secret}@")])
        assert code == 0 and secret not in capsys.readouterr().out
        monkeypatch.setenv("ICR_JUDGE_API_KEY", "wrong")
        code, told = doctor(capsys, "--judge", server.url)
        assert code == 1 and told["named"][0]["detail"].endswith("set $ICR_JUDGE_API_KEY")


def test_named_data_must_be_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    for name in ("helmet_rag", "icr_helmet_rag_nq_4k", "icr_helmet_rag_nq", "loong_fin"):
        code, told = doctor(capsys, "--data", name)
        assert code == 1 and told["next"].startswith("icr data fetch "), name
    assert doctor(capsys, "--data", "nolima")[1]["next"].endswith(" --lengths 250 --accept-license")
    assert doctor(capsys, "--data", "synth,icr_synth_rag_512")[0] == 0
    code, told = doctor(capsys, "--data", "helmt_rag")
    assert code == 1 and "Did you mean" in told["named"][0]["detail"]
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path / "gone"))
    code, told = doctor(capsys, "--data", "helmet_rag")
    assert code == 1 and "is not a folder" in told["named"][0]["detail"]


def test_named_engines_are_imported_and_extras_looked_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = doctor(capsys, "--engine", "icr-api,replay")
    assert code == 0 and all(found["detail"].endswith("imports") for found in told["named"])
    broken = health.Engine(("icr-api",), (), "raise ImportError('libfoo.so: sk-abcdefgh12345678')")
    monkeypatch.setitem(health.ENGINES, "api", broken)
    code, told = doctor(capsys, "--engine", "api")
    assert code == 1 and "libfoo.so" in told["named"][0]["detail"] and "sk-abc" not in json.dumps(told)
    from packaging.requirements import Requirement

    needs = {**health.requirements(), "rag": [Requirement("no-such-package>=1"), Requirement("numpy<0.1")]}
    monkeypatch.setattr(health, "requirements", lambda: needs)
    code, told = doctor(capsys, "--extra", "rag")
    assert code == 1 and told["next"] == install_hint("rag")
    assert (
        "no-such-package is not installed" in told["named"][0]["detail"]
        and "is not <0.1" in told["named"][0]["detail"]
    )


def test_a_gpu_build_without_a_gpu_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "extra", lambda name, needs: health.Finding(name, True, "vllm 0.33.0"))
    monkeypatch.setattr(health.metadata, "version", lambda name: "0.33.0")
    assert health.engine("vllm", [], tried=False).usable is False
    assert health.engine("icr-vllm", ["NVIDIA H100"], tried=False).usable is True
    monkeypatch.setattr(health.metadata, "version", lambda name: "0.33.0+cpu")
    assert health.engine("vllm", [], tried=False).usable is True


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--engine", "vlm"], "Did you mean 'vllm'"),
        (["--extra", "boards"], "Did you mean 'board'"),
        (["--model", "m"], "--model needs --endpoint"),
    ],
)
def test_a_name_that_is_none(args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *args]) == 2 and words in capsys.readouterr().err


def test_a_plugin_that_fails_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugins._failed, "mine", "ImportError: no module named mine")
    _, told = doctor(capsys)
    assert any(p["name"] == "mine" and not p["usable"] for p in told["plugins"])
