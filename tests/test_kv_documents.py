"""One prefill and one compression of a document for all its questions; one document's cache whatever the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
import tiny  # noqa: E402
from test_kv_hf import TEXT, lm, request  # noqa: E402

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv.hf import decode, same_logits  # noqa: E402

OTHER = "Fernwick lies on the lake of Aldercombe, they say. " * 5
QUESTIONS = ("Which river?", "What runs through it, and where?", "Who?")
SETTINGS = (
    "full",
    "kv:topk@0.05,window=16,query-agnostic",
    "kv:snapkv@0.3,window=16,query-agnostic",
    "kv:snapkv@0.3,window=16,every=2,adaptive,query-agnostic",
    "kv:expected@0.5,query-agnostic",
    "kv:kivi,residual=16,query-agnostic",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("llama"))


def asked(settings: tuple[str, ...] = SETTINGS) -> list[Any]:
    """Questions of two documents in turn, setting by setting: the order in which a host may send them."""
    return [
        request(text + question, setting=setting, boundary=len(text))
        for setting in settings
        for question in QUESTIONS
        for text in (TEXT, OTHER)
    ]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    ran: list[int] = []
    original = decode._prefill
    monkeypatch.setattr(decode, "_prefill", lambda *args: ran.append(1) or original(*args))
    monkeypatch.setattr(same_logits, "identity", lambda *args: None)
    return ran


def test_a_document_is_prefilled_once_and_compressed_once_a_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = [lm(folder).generate_until([r], disable_tqdm=True)[0] for r in asked()]
    ran, engine, requests = counted(monkeypatch), lm(folder, compress_once=True), asked()
    assert engine.generate_until(requests, disable_tqdm=True) == each
    assert engine.documents.compressions == 2 * len(SETTINGS)
    assert len(ran) == 2 * 2, "a document, and once more for the method that watches the prefill itself"
    for one, setting in zip(requests, [s for s in SETTINGS for _ in range(6)], strict=True):
        assert one.found["kv"]["setting"] == setting
        assert ("query-agnostic" in setting) == bool(one.found["kv"]["sparse_steps"])
    batched = lm(folder, compress_once=True, batch_size=3)
    assert batched.generate_until(asked(), disable_tqdm=True) == each


def test_settings_of_one_call_share_each_prompts_prefill(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("full", "kv:topk@0.05,window=16", "kv:snapkv@0.5,window=16", "kv:page@0.1,window=16")
    each = [lm(folder).generate_until([r], disable_tqdm=True)[0] for r in asked(settings)]
    ran, requests = counted(monkeypatch), asked(settings)
    engine = lm(folder)
    assert engine.generate_until(requests, disable_tqdm=True) == each
    assert len(ran) == 6, "six prompts"
    assert engine.last is None, "nothing is kept after the call"
    assert [r.found["kv"]["prefill_reused"] for r in requests] == [False] * 6 + [True] * 18


def test_a_question_before_the_compression_is_refused(folder: Path) -> None:
    with pytest.raises(IcrError, match="write kv:topk@0.05,query-agnostic, or leave compress_once out"):
        lm(folder, compress_once=True).generate_until(
            [request(TEXT, setting="kv:topk@0.05")], disable_tqdm=True
        )
    nowhere = request(TEXT, setting="full")
    lm(folder, compress_once=True).generate_until([nowhere], disable_tqdm=True)
    assert "does not say where its context ends" in nowhere.found["error"]
