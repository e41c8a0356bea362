"""Notes of the cache that a machine without power left empty or torn: they are made again, nobody has to find them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from icr_tasks import storage
from icr_tasks.benchmarks import official_tokens
from icr_tasks.context.retrieval import asker
from icr_tasks.context.retrieval.embedder import Embedder
from icr_tasks.errors import IcrError

DAMAGE = (b"", b"\0" * 40, b'{"sha256": "ab')


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "icr-tasks"


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checksum_is_taken_again(damage: bytes, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"text")
    whole = hashlib.sha256(b"text").hexdigest()
    assert storage.fingerprint(tmp_path / "data") == whole
    [note] = (cache / "sha256").iterdir()
    note.write_bytes(damage)
    assert storage.fingerprint(tmp_path / "data") == whole == json.loads(note.read_bytes())["sha256"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_tokens_are_counted_again(damage: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official_tokens, "encoder", lambda name: len)
    for _ in range(2):
        assert official_tokens.counted("k", "e", {1: 4}, lambda n: ["abcd"], 1, 9) == {1: 4}
        next((cache / "official_tokens").iterdir()).write_bytes(damage)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_served_asker_is_asked_again(damage: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def post(url: str, body: Any) -> Any:
        asked.append(body)
        return {"choices": [{"message": {"content": "Who is Ada?"}}]}

    monkeypatch.setattr(asker, "post", post)
    served = asker.Served("m", "http://localhost:1/v1")
    for n in (1, 2):
        assert served.parts("Where?") == ["Who is Ada?"] and len(asked) == n
        next((cache / "asked").iterdir()).write_bytes(damage)


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_an_embedder_reads_is_asked_again(damage: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "embedder"
    folder.mkdir()
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 60}')
    (folder / "model.safetensors").write_bytes(b"w")
    found = Embedder(str(folder))
    storage.write_atomic(found.vectors / "reads.json", b'{"tokens": 20}')
    assert found.reading.tokens == 20
    (found.vectors / "reads.json").write_bytes(damage)
    assert found.reading.tokens == 60
    (folder / "config_sentence_transformers.json").write_bytes(damage)
    with pytest.raises(IcrError, match="get the embedder again"):
        Embedder(str(folder)).prompt("query")
