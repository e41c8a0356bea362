"""Cache types of vLLM: allowed where their kernel exists, refused by name with the reason elsewhere."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from icr_tasks.errors import IcrError
from icr_tasks.harness.options import Options
from icr_tasks.kv import choose
from icr_tasks.kv.vllm import counters
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


# -- kv=task: one engine, the setting of each task ---------------------------------------------------------


@pytest.fixture
def by_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICR_KV", "task")
    monkeypatch.setenv(counters.VARIABLE, "")
    monkeypatch.delenv(counters.VARIABLE)
    counters._text.cache_clear()
    yield
    Path(counters.path()).unlink()


def test_an_engine_that_follows_the_task_is_told_the_setting(by_task: None) -> None:
    assert choose.asked() is None
    assert choose.running() is None
    choose.switch(Setting.parse("kv:topk@0.05,window=32"))
    assert choose.running() == counters.told() == "kv:topk@0.05,window=32"
    counters.Counters(1).add(sparse_steps=2, bytes_read=5, bytes_full=10, tokens_read=1, tokens_full=10)
    choose.switch(Setting.parse("kv:topk@0.05,window=32"))  # the same again: counts go on
    found = choose.measured()
    assert (found["setting"], found["read_fraction"], found["attended_fraction"]) == (
        "kv:topk@0.05,window=32",
        0.5,
        0.1,
    )
    choose.switch(Setting.parse("kv:steady"))
    assert choose.measured()["setting"] == "full", "another setting's steps do not count"
    choose.switch(Setting.parse("rag@4k"))
    assert choose.running() is None
    with pytest.raises(IcrError, match="the vLLM backend has topk, page, steady"):
        choose.switch(Setting.parse("kv:snapkv@0.5"))


def test_likelihoods_are_refused_only_when_compressed(by_task: None, monkeypatch: pytest.MonkeyPatch) -> None:
    choose.refuse_scoring(None)
    choose.refuse_scoring(Setting.parse("full"))
    with pytest.raises(IcrError, match="would be the uncompressed ones"):
        choose.refuse_scoring(Setting.parse("kv:topk@0.05"))
    monkeypatch.setenv("ICR_KV", "topk@0.05")
    with pytest.raises(IcrError, match="kv:topk@0.05"):
        choose.refuse_scoring(None)


def test_kv_task_as_a_model_argument() -> None:
    assert str(Options.parse({"kv": "task", "setting": "kv:page@0.05"}).setting) == "kv:page@0.05"
    with pytest.raises(IcrError, match="kv=task takes no kv_sink"):
        Options.parse({"kv": "task", "kv_sink": 4})
