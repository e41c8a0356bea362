"""KV settings as strings and as model arguments: every knob round-trips, every mistake has a sentence."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from icr_tasks.errors import IcrError
from icr_tasks.harness.options import Options
from icr_tasks.kv import METHODS, choose
from icr_tasks.settings import Setting


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kv:topk@0.05", "kv:topk@0.05"),
        ("kv:topk", "kv:topk@0.05"),
        ("kv:topk@0.05,window=64,sink=4", "kv:topk@0.05"),
        ("kv:cluster,estimation=0.1,sink=8", "kv:cluster@0.018,sink=8,estimation=0.1"),
        ("kv:steady,window=1024", "kv:steady,window=1024"),
        ("kv:snapkv@0.25,query-agnostic,window=32", "kv:snapkv@0.25,window=32,query-agnostic"),
        ("kv:snapkv@0.25,query-aware", "kv:snapkv@0.25"),
        ("kv:cluster,build=naive", "kv:cluster@0.018,build=naive"),
        ("kv:press.SnapKV@0.5,query-agnostic", "kv:press.SnapKV@0.5,query-agnostic"),
        ("kv:fp8", "kv:fp8"),
    ],
)
def test_round_trip(text: str, shown: str) -> None:
    assert str(Setting.parse(text)) == shown
    assert Setting.parse(shown) == Setting.parse(text)


def test_params_carry_every_default() -> None:
    params = Setting.parse("kv:cluster").params
    assert (params["estimation"], params["sink"], params["window"], params["size"]) == (0.232, 4, 64, 16)
    assert params["split"] == "query-aware"
    assert Setting.parse("kv:cluster").amount == 0.018


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kv:topk@1.5", r"outside \(0, 1\]"),
        ("kv:topk@0", r"outside \(0, 1\]"),
        ("kv:topk@lots", "is not a number"),
        ("kv:topc@0.1", "topk"),
        ("kv:topk,windw=3", "window"),
        ("kv:topk,window=3.5", "whole number >= 0"),
        ("kv:topk,window=-1", "whole number >= 0"),
        ("kv:snapkv,kernel=4", "must be odd"),
        ("kv:cluster,estimation=2", "between 0 and 1"),
        ("kv:cluster,build=slow", "fast"),
        ("kv:topk,split=query-awre", "query-aware"),
        ("kv:topk,sink=1,sink=2", "twice"),
        ("kv:press.SnapKw@0.5", "SnapKV"),
        ("kv:press.SnapKV@0.5,window=3", "window"),
        ("kv:fp8@0.5", "takes no parameters"),
        ("kv", "needs a method"),
    ],
)
def test_bad_settings(text: str, said: str) -> None:
    with pytest.raises(IcrError, match=said):
        Setting.parse(text)


def test_model_arguments_are_the_same_setting() -> None:
    args = {
        "pretrained": "x",
        "kv": "cluster",
        "kv_budget": 0.018,
        "kv_estimation": 0.1,
        "kv_split": "query-agnostic",
    }
    assert str(choose.from_args(args)) == "kv:cluster@0.018,estimation=0.1,query-agnostic"
    assert str(Options.parse(args).setting) == "kv:cluster@0.018,estimation=0.1,query-agnostic"
    assert choose.from_args({"kv_cache_dtype": "fp8"}) is None
    assert str(Options.parse({"setting": "kv:topk@0.05", "kv": "topk"}).setting) == "kv:topk@0.05"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"kv_budget": 0.1}, "without kv=METHOD"),
        ({"kv": None}, "kv=steady"),
        ({"kv": "full", "kv_sink": 3}, "takes no kv_sink"),
        ({"kv": "topk", "setting": "kv:page@0.1"}, "contradicts"),
        ({"kv": "topk", "setting": "rag@4k"}, "contradicts"),
    ],
)
def test_bad_model_arguments(args: dict, said: str) -> None:
    with pytest.raises(IcrError, match=said):
        Options.parse(args)


def test_settings_parse_without_torch() -> None:
    code = "import sys\nfrom icr_tasks.settings import Setting\n" + "\n".join(
        f"Setting.parse('kv:{name}').params" for name in METHODS
    )
    subprocess.run([sys.executable, "-P", "-c", code + "\nassert 'torch' not in sys.modules"], check=True)


def test_an_engine_that_ignores_the_setting_gives_an_error_not_a_score() -> None:
    asked = Setting.parse("kv:topk@0.05")
    assert "not kv:topk@0.05" in choose.verify(asked, {})["error"]
    assert "not kv:topk@0.05" in choose.verify(asked, {"kv": {"setting": "kv:page@0.05"}})["error"]
    assert "error" not in choose.verify(asked, {"kv": {"setting": "kv:topk@0.05"}})
    assert "error" not in choose.verify(Setting.parse("kv:fp8"), {})


def test_kvpress_missing_or_too_new_names_the_environment() -> None:
    pytest.importorskip("torch")
    from icr_tasks.kv import make
    from icr_tasks.kv.press import PRESS_FREES, PRESS_MASKS

    assert make("press.SnapKV", 0.5).frees
    assert not make("press.AdaKV", 0.5).frees
    assert not set(PRESS_FREES) & set(PRESS_MASKS)
    transformers = pytest.importorskip("transformers")
    if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 3):
        pytest.skip("this environment is the one kvpress runs in")
    with pytest.raises(IcrError, match=r"needs (kvpress|one below 5.3).*\.\[hf,kv\]"):
        _ = make("press.SnapKV", 0.5).press


def test_stored_answers_and_cells_know_what_is_behind_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed file of head scores, or a changed method, is another run: nothing of the old one is taken for it."""
    from types import SimpleNamespace

    from icr_tasks.engines.answers import key_of
    from icr_tasks.registry import KV_METHODS
    from icr_tasks.sweep.cells import Cell

    scores = tmp_path / "heads.tsv"

    def names(text: str) -> tuple[str, str]:
        request = SimpleNamespace(args=("Q", {"until": []}), setting=Setting.parse(text))
        cell = Cell("m", "icr-hf", {"pretrained": "m"}, text, "ao", "icr_synth_rag_512")
        return key_of(request), cell.fingerprint

    scores.write_text("1 2\n")
    before = names(f"kv:duo@0.5,scores={scores}")
    assert names(f"kv:duo@0.5,scores={scores}") == before
    scores.write_text("2 1\n")
    assert not set(before) & set(names(f"kv:duo@0.5,scores={scores}"))

    before, full = names("rag@512+kv:page@0.05"), names("full")
    entry = KV_METHODS.get("page")
    changed = dataclasses.replace(entry, facts={**entry.facts, "version": entry.facts["version"] + 1})
    monkeypatch.setitem(KV_METHODS.known, "page", changed)
    assert not set(before) & set(names("rag@512+kv:page@0.05"))
    assert names("full") == full
