"""A device that this machine has not is one sentence that names another, wherever a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from icr_tasks import hub
from icr_tasks.context.retrieval import engines, learned, rerank
from icr_tasks.engines.hf import IcrHF
from icr_tasks.errors import IcrError
from icr_tasks.ranking import attention


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without GPU, whatever this one has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return monkeypatch


def test_where_models_run(gpus: pytest.MonkeyPatch) -> None:
    assert hub.device(None) == hub.device("") == hub.device("cpu") == "cpu" and hub.device("meta") == "meta"
    for asked, said in (
        ("cuda", "no GPU"),
        ("cuda:1", "icr doctor"),
        ("gpu", "write cpu, cuda"),
        ("cuda:x", "write"),
    ):
        with pytest.raises(IcrError, match=said):
            hub.device(asked)
    gpus.setattr(torch.cuda, "is_available", lambda: True)
    gpus.setattr(torch.cuda, "device_count", lambda: 2)
    assert hub.device(None) == "cuda" and hub.device("cuda:1") == "cuda:1"
    with pytest.raises(IcrError, match="the last GPU here is cuda:1"):
        hub.device("cuda:2")


def test_every_loader_says_so(gpus: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before it reads weights."""
    for load in (
        lambda: attention.load(str(tmp_path), device="cuda"),
        lambda: IcrHF(str(tmp_path), device="cuda"),
        lambda: engines._st(str(tmp_path), None, {"device": "cuda"}),
        lambda: rerank._load(str(tmp_path), None, "", "cuda"),
        lambda: learned._load("SparseEncoder", str(tmp_path), None, "", "cuda"),
    ):
        with pytest.raises(IcrError, match="PyTorch sees no GPU here"):
            load()
    with pytest.raises(IcrError, match="dtype 'float33'"):
        attention.load(str(tmp_path), dtype="float33")
