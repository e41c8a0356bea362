"""`--executor ray`: vLLM replicas under Ray Data LLM answer what icr-vllm answers; skipped where Ray is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import tiny
import yaml

from icr_tasks.cli import main
from icr_tasks.sweep import records
from icr_tasks.sweep import study as studies


def study(folder: Path, model: Path | str, **more: Any) -> Path:
    args = {"pretrained": str(model), "dtype": "float32", "max_model_len": 2048, "enforce_eager": True}
    body = {
        "out": str(folder / "out"),
        "models": [{"model": "icr-vllm", "model_args": args}],
        "tasks": [{"task": "icr_synth_rag_512", "limit": 3}],
        "settings": ["full", "none"],
        "prompts": ["ao"],
        "gen_kwargs": {"max_gen_toks": 8},
        **more,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def answers(out: Path) -> dict[str, dict[str, Any]]:
    lines = [line for path in (out / "answers").glob("*.jsonl") for line in path.read_bytes().splitlines()]
    return {record["key"]: record for record in map(orjson.loads, lines)}


def test_other_models_are_refused_before_ray_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study(tmp_path, "m", models=[{"model": "dummy", "model_args": {"pretrained": "m"}}])
    assert main(["sweep", str(path), "--executor", "ray"]) == 2
    assert "--executor ray runs `model: icr-vllm`" in capsys.readouterr().err


class _Tokens:
    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("abc", "stop"), ("abcd", "length"), ("abc\0", "stop"), ("ab\n\n", "stop"), ("ab\nc", "length")],
)
def test_the_end_of_an_answer_is_told_from_its_tokens(text: str, reason: str) -> None:
    """At most four tokens; `\\0` ends an answer, and so does an empty line."""
    pytest.importorskip("vllm")
    from icr_tasks.engines import ray_data

    params = {"max_tokens": 4, "stop": ["\n\n"]}
    assert ray_data.finish([ord(c) for c in text], params, {0}, _Tokens()) == reason


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Ray of two processors started here."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data.llm")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    try:
        ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200_000_000)
    except Exception as error:
        pytest.skip(f"Ray does not start on this machine: {error}")
    yield ray
    ray.shutdown()


def test_replicas_give_the_answers_of_one_engine(
    tmp_path: Path, cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two settings go through one load; a field that Ray does not have is refused; each answer is that of icr-vllm."""
    model = tiny.llama(tmp_path / "model", hidden=256)  # vLLM on CPUs has no heads of 16
    wrong = study(tmp_path, model, ray={"num_gpus": 1})
    assert main(["sweep", str(wrong), "--executor", "ray"]) == 1
    assert "unknown key of `ray`" in capsys.readouterr().err
    path = study(tmp_path, model, ray={"batch_size": 2})
    assert main(["sweep", str(path), "--executor", "ray"]) == 0
    assert {s.state for s in records.states(studies.load(path))} == {"done"}
    found = answers(tmp_path / "out")
    assert len(found) == 6
    assert main(["sweep", str(path), "-o", str(tmp_path / "one")]) == 0
    alone = answers(tmp_path / "one")
    assert alone.keys() == found.keys()
    for key, record in found.items():
        one = alone[key]
        assert (record["text"], record["finish_reason"]) == (one["text"], one["finish_reason"])
        assert record["engine_tokens"]["prompt"] == one["engine_tokens"]["prompt"]
        assert record["engine_tokens"]["output"] == one["engine_tokens"]["output"]
