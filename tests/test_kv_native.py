"""Cache types of vLLM: allowed where their kernel exists, refused by name with the reason elsewhere."""

from __future__ import annotations

import ast
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from icr_tasks.errors import IcrError
from icr_tasks.harness.options import Options
from icr_tasks.kv import choose
from icr_tasks.kv.counts import KvCounts
from icr_tasks.kv.vllm import counters
from icr_tasks.kv.vllm.state import EngineState
from icr_tasks.settings import KV_NATIVE, Setting


def test_the_table_and_the_settings_have_the_same_names() -> None:
    assert set(choose.NATIVE) == set(KV_NATIVE)
    for name in KV_NATIVE:
        assert str(Setting.parse(f"kv:{name}")) == f"kv:{name}"
        choose.check(name, "cuda")


@pytest.mark.parametrize("name", KV_NATIVE)
def test_on_a_cpu_only_what_its_kernel_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of `--model vllm --model_args kv_cache_dtype=...`: lm_eval hands model_args to the task."""
    monkeypatch.setattr(choose, "platform", lambda: "cpu")
    args = {"pretrained": "x", "kv_cache_dtype": name}
    if name in ("auto", "fp8", "fp8_e4m3", "fp8_e5m2"):
        assert str(Options.parse(args).setting) == ("full" if name == "auto" else f"kv:{name}")
        return
    with pytest.raises(IcrError) as error:
        Options.parse(args)
    said = str(error.value)
    if name in ("float16", "bfloat16"):
        assert f"set dtype={name} instead" in said
    else:
        assert "refused on cpu" in said
        assert "garbage" in said
        assert "allowed here: auto, fp8, fp8_e4m3, fp8_e5m2" in said
        assert ("TurboQuant" in said) is name.startswith("turboquant")


def test_on_a_gpu_every_type_is_recorded_as_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "platform", lambda: "cuda")
    found = Options.parse({"kv_cache_dtype": "turboquant_4bit_nc"}).setting
    assert (str(found), found.compressed) == ("kv:turboquant_4bit_nc", True)
    with pytest.raises(IcrError, match="turboquant_4bit_nc"):
        Options.parse({"kv_cache_dtype": "turboquant_4bit"})
    with pytest.raises(IcrError, match="contradicts"):
        Options.parse({"kv_cache_dtype": "fp8", "setting": "kv:topk@0.05"})


def test_the_table_is_that_of_the_installed_vllm() -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("needs vLLM")
    root = Path(found.origin).parent
    assert set(choose.NATIVE) <= _strings(root / "config" / "cache.py", "CacheDType")
    backends = root / "v1" / "attention" / "backends"
    cpu = _strings(backends / "cpu_attn.py", "supported_kv_cache_dtypes")
    assert {name for name, (where, _) in choose.NATIVE.items() if "cpu" in where} == cpu
    gpu = set().union(
        *(
            _strings(backends / f"{n}.py", "supported_kv_cache_dtypes")
            for n in ("flash_attn", "flashinfer", "triton_attn", "turboquant_attn")
        )
    )
    assert set(choose.NATIVE) == gpu


def _strings(path: Path, name: str) -> set[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == name:
            return {
                n.value
                for n in ast.walk(node.value)
                if isinstance(n, ast.Constant) and isinstance(n.value, str)
            }
    raise AssertionError(f"{name} is not in {path}")


# -- kv=task: one engine, the setting of each request ------------------------------------------------------

TOPK = "kv:topk@0.05,window=32"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> EngineState:
    """An engine that follows its requests; its process has no ICR_KV."""
    pytest.importorskip("vllm")
    monkeypatch.delenv("ICR_KV", raising=False)
    monkeypatch.delenv(counters.VARIABLE, raising=False)
    return EngineState({"kv": "task"})


def test_an_engine_that_follows_the_task_is_told_the_setting(engine: EngineState) -> None:
    assert engine.running is None
    engine.switch(Setting.parse(TOPK))
    assert engine.running == TOPK
    for rank in (0, 1):  # two tensor-parallel workers take the same steps and read half the heads each
        worker = counters.Counters(engine.file, rank)
        worker.add(
            "icr-7-0-ab12",
            steps=2,
            sparse_steps=2,
            bytes_read=5,
            bytes_full=10,
            tokens_read=1,
            tokens_full=10,
        )
        worker.add("icr-7-1-cd34", steps=1, bytes_read=8, bytes_full=8, tokens_read=4, tokens_full=4)
    found = engine.measured("icr-7-0", prompt=9, output=3)
    assert (found["setting"], found["read_fraction"], found["attended_fraction"]) == (TOPK, 0.5, 0.1)
    assert (found["steps"], found["sparse_steps"], found["bytes_read_per_step"]) == (2, 2, 5)
    assert not found["fallback"]
    other = engine.measured("icr-7-1", prompt=9, output=2)
    assert (other["fallback"], other["steps"], other["read_fraction"]) == (True, 1, 1.0), (
        "counts are a request's own"
    )
    assert engine.measured("icr-7-2", prompt=9, output=2)["setting"] == "full", (
        "no step was counted: nothing compressed"
    )
    assert engine.measured("icr-7-2", prompt=9, output=1)["setting"] == TOPK, (
        "its only token came from the prefill"
    )
    # the engine adds what ran, and the model's own cache
    told = {name for name in KvCounts.__annotations__ if name not in ("setting", "native")}
    assert set(found) - {"setting"} == told, "the names of icr-hf, None where vLLM does not tell"
    assert (found["method"], found["frees"], found["mass_kept"]) == ("topk", False, None)
    assert found["bytes_full_per_token"] == round(20 / (2 * 9 + 3), 2), "all ranks, over what two steps saw"
    engine.switch(Setting.parse("rag@4k"))
    assert engine.running is None
    assert engine.measured("icr-7-3", prompt=9, output=2) is None
    with pytest.raises(IcrError, match="the vLLM backend has topk, page, steady"):
        engine.switch(Setting.parse("kv:expected@0.5"))


def test_the_ring_of_requests_forgets_the_oldest(
    engine: EngineState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "_SLOTS", 4)
    worker = counters.Counters(engine.file)
    for i in range(6):
        worker.add(f"icr-1-{i}-x", steps=i + 1)
    assert [counters.of(engine.file, f"icr-1-{i}")["steps"] for i in range(6)] == [0, 0, 3, 4, 5, 6]
    assert counters.totals(engine.file)["steps"] == 21


def test_the_environment_is_as_it_was_when_an_engine_has_started(
    engine: EngineState, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = {"kv": "topk", "kv_budget": 0.05, "additional_config": {"mine": 1}}
    compressed = EngineState(args)
    with compressed.starting():
        assert os.environ["ICR_KV"] == "kv:topk@0.05"
    assert "ICR_KV" not in os.environ and counters.VARIABLE not in os.environ
    assert args["additional_config"]["mine"] == 1
    assert args["additional_config"][counters.CONFIG]["setting"] == "kv:topk@0.05"
    assert EngineState({}).asked is None, "the next engine starts from its own arguments"
    assert str(Options.parse({}).setting) == "full"
    monkeypatch.setenv("ICR_KV", "page@0.05")  # exported by the user
    assert EngineState({}).asked == "kv:page@0.05"
    full = EngineState({"kv": "full"})
    with full.starting():
        assert "ICR_KV" not in os.environ
    assert full.asked is None and os.environ["ICR_KV"] == "page@0.05"


@pytest.mark.parametrize(
    ("args", "setting", "dtype", "said"),
    [
        ({}, "full", "auto", None),
        ({}, "rag@4k", "auto", None),
        ({}, "rag@4k", "fp8", None),
        ({"kv": "task"}, "none", "auto", None),
        ({"kv": "task"}, TOPK, "auto", None),
        ({"kv": "topk", "kv_budget": 0.05, "kv_window": 32}, TOPK, "auto", None),
        ({}, "kv:fp8", "fp8", None),
        ({}, TOPK, "auto", "loaded for full attention and cannot run kv:topk"),
        ({"kv": "page"}, TOPK, "auto", "loaded for kv:page@0.05 and cannot run kv:topk"),
        ({"kv": "page"}, "full", "auto", "loaded for kv:page@0.05 and cannot run full"),
        ({"kv": "page"}, "rag@4k", "auto", "loaded for kv:page@0.05 and cannot run rag@4k"),
        ({"kv": "page"}, "none", "auto", "cannot run none"),
        ({"kv": "task"}, "kv:expected@0.5", "auto", "the vLLM backend has topk, page, steady"),
        ({"kv": "task"}, "kv:snapkv@0.5", "auto", "kv:snapkv needs enable_prefix_caching=False"),
        ({"kv": "task", "enable_prefix_caching": False}, "kv:snapkv@0.5", "auto", None),
        ({}, "kv:fp8", "auto", "needs an engine with kv_cache_dtype=fp8; this one has auto"),
        ({}, "full", "fp8", "keeps its cache as fp8, so it cannot run full"),
    ],
)
def test_an_engine_says_what_it_cannot_run(
    args: dict[str, Any], setting: str, dtype: str, said: str | None, engine: EngineState
) -> None:
    found = EngineState(dict(args)).refusal(Setting.parse(setting), dtype)
    assert (found is None) if said is None else said in found


def test_likelihoods_are_refused_only_when_compressed() -> None:
    choose.refuse_scoring(None)
    choose.refuse_scoring(Setting.parse("full"))
    with pytest.raises(IcrError, match="would be the uncompressed ones"):
        choose.refuse_scoring(Setting.parse("kv:topk@0.05"))


def test_kv_task_as_a_model_argument() -> None:
    assert str(Options.parse({"kv": "task", "setting": "kv:page@0.05"}).setting) == "kv:page@0.05"
    with pytest.raises(IcrError, match="kv=task takes no kv_sink"):
        Options.parse({"kv": "task", "kv_sink": 4})
