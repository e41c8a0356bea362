"""What a model's configuration tells of a setting is said before its weights load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from icr_tasks.errors import IcrError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration without weights: 3 layers of 2 KV heads."""
    from transformers import LlamaConfig

    found = tmp_path_factory.mktemp("plain")
    LlamaConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=50
    ).save_pretrained(found)
    return found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kv": "duo"}, "needs scores=FILE"),
        ({"kv": "duo", "kv_scores": "absent.tsv"}, "cannot be read"),
        ({"kv": "duo", "kv_scores": "two.tsv"}, "another model: 2 layers of 2 KV heads, this one has 3 of 2"),
        ({"kv": "native"}, "is for models that compress by design"),
        ({"kv": "fp8"}, "is an option of vLLM"),
        ({"kv": "topk", "kv_budget": 0}, r"outside \(0, 1\]"),
        ({"kv": "cluster", "kv_build": "fast", "kv_rounds": 3}, "rounds= does nothing"),
        ({"kv": "press.Nope"}, "unknown kvpress press 'Nope'"),
    ],
)
def test_a_setting_is_refused_before_weights_load(
    folder: Path, given: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM

    from icr_tasks.engines.hf import IcrHF

    (folder / "two.tsv").write_text("1 2\n3 4\n")
    if "kv_scores" in given:
        given = {**given, "kv_scores": str(folder / given["kv_scores"])}
    monkeypatch.setattr(HFLM, "__init__", lambda self, *args, **kwargs: pytest.fail("weights load"))
    monkeypatch.delenv("ICR_KV", raising=False)
    with pytest.raises(IcrError, match=said):
        IcrHF(str(folder), device="cpu", **given)


def test_models_that_hold_nothing_to_choose_from_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.models.huggingface import HFLM
    from transformers import MistralConfig

    from icr_tasks.engines.hf import IcrHF

    MistralConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, sliding_window=64
    ).save_pretrained(tmp_path)
    monkeypatch.setattr(HFLM, "__init__", lambda self, *args, **kwargs: pytest.fail("weights load"))
    with pytest.raises(IcrError, match="none of its layers has full attention"):
        IcrHF(str(tmp_path), device="cpu", kv="topk")
