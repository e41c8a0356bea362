"""Dual-chunk models: switched off, capped and recorded, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icr_tasks.engines import vllm
from icr_tasks.errors import IcrError

CONFIG = {vllm.KEY: {"chunk_size": 262144, "local_size": 8192, "original_max_position_embeddings": 262144}}


def test_other_models_are_left_alone() -> None:
    args: dict[str, Any] = {"max_model_len": 999_999_999}
    assert vllm.switch_off(args, {"model_type": "llama"}) is None and args == {"max_model_len": 999_999_999}


def test_switched_off_and_capped() -> None:
    args: dict[str, Any] = {"hf_overrides": {"rope_theta": 1.0}}
    assert vllm.switch_off(args, CONFIG) == {"dual_chunk_attention": "off", "usable_tokens": 262144}
    assert args == {"hf_overrides": {"rope_theta": 1.0, vllm.KEY: None}, "max_model_len": 262144}
    shorter: dict[str, Any] = {"max_model_len": 32768}
    vllm.switch_off(shorter, CONFIG)
    assert shorter["max_model_len"] == 32768


def test_longer_windows_are_refused() -> None:
    with pytest.raises(IcrError, match="max_model_len=262144"):
        vllm.switch_off({"max_model_len": 1_010_000}, CONFIG)


def test_config_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", **CONFIG}))
    assert vllm.config_of(str(tmp_path))[vllm.KEY]["local_size"] == 8192
    assert vllm.config_of(str(tmp_path / "nothing")) == {}
