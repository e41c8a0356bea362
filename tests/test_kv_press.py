"""kvpress itself behind `kv:press.NAME`: runs where kvpress is installed, which is an environment of its own
(`.ci/run` makes one; by hand: the extras [hf,kv])."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("kvpress") is None:
    pytest.skip("kvpress is not installed: it has an environment of its own", allow_module_level=True)

from test_kv_vllm_task import _model as wide_model

from icr_tasks.errors import IcrError
from icr_tasks.kv import choose
from icr_tasks.kv.press import _AWARE_ONLY, PRESS_FREES, PRESS_MASKS
from icr_tasks.settings import Setting

TEXT = "The river Ilessdell runs through Dorovgate. " * 6


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from icr_tasks.engines.hf import IcrHF

    folder: Path = wide_model(tmp_path_factory.mktemp("llama"))
    return IcrHF(str(folder), dtype="float32", device="cpu")


def _run(engine: Any, text: str) -> dict[str, Any]:
    from icr_tasks.harness.instance import PromptInstance

    setting = Setting.parse(text)
    asked = PromptInstance(
        doc={},
        prompt=TEXT + "Which river?",
        gen_kwargs={"until": [], "do_sample": False, "max_gen_toks": 6},
        digest="{}",
        task="t",
        doc_id=0,
        repeats=1,
        setting=setting,
        boundary=len(TEXT),
    )
    asked.answer = engine.generate_until([asked], disable_tqdm=True)[0]
    return {**choose.verify_all(setting, [asked.found])[0], "answer": asked.answer}


@pytest.mark.parametrize("name", PRESS_FREES)
@pytest.mark.parametrize("split", ["", ",query-agnostic"])
def test_a_press_frees_what_it_was_asked_to(engine: Any, name: str, split: str) -> None:
    if split and name in _AWARE_ONLY:  # refused before anything is generated
        with pytest.raises(IcrError, match="leave query-agnostic out"):
            _run(engine, f"kv:press.{name}@0.5{split}")
        return
    found = _run(engine, f"kv:press.{name}@0.5{split}")
    assert "error" not in found, found
    assert found["kv"]["stored_fraction"] == pytest.approx(0.5, abs=0.05)
    assert found["kv"]["attended_fraction"] < 0.6


@pytest.mark.parametrize("name", PRESS_MASKS)
@pytest.mark.parametrize("split", ["", ",query-agnostic"])
def test_a_masking_press_says_that_it_frees_nothing(engine: Any, name: str, split: str) -> None:
    found = _run(engine, f"kv:press.{name}@0.5{split}")
    assert "error" not in found, found
    assert found["kv"]["stored_fraction"] == pytest.approx(1.0)
    assert found["kv"]["attended_fraction"] < 0.75


@pytest.mark.parametrize("name", PRESS_FREES + PRESS_MASKS)
def test_a_press_that_keeps_everything_is_full_attention_and_an_error(engine: Any, name: str) -> None:
    whole = _run(engine, f"kv:press.{name}@1.0")
    assert "left no key out" in whole["error"]
    assert whole["answer"] == _run(engine, "full")["answer"]
