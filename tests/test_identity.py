"""What tells local weights apart: a file replaced in place, one tensor trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from icr_tasks.engines import identity


def test_a_file_of_weights_that_is_replaced_is_another_model(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    found = []
    for text in (b"GGUF old", b"GGUF new"):
        path.write_bytes(text)
        found.append(identity.engine({"pretrained": str(path)}))
    assert found[0] != found[1] and set(found[0]["files"]) == {"pretrained"}
    assert "files" not in identity.engine(
        {"pretrained": "org/model", "tokenizer": str(tmp_path / "none.gguf")}
    )


@pytest.mark.parametrize("trained", [f"layers.{i}.o_proj" for i in range(12)])
def test_one_trained_tensor_is_seen_wherever_it_lies(trained: str, tmp_path: Path) -> None:
    tensors = {
        f"layers.{i}.{n}": np.zeros((200, 200), np.float32) for i in range(12) for n in ("o_proj", "up")
    }
    (tmp_path / "config.json").write_text("{}")
    before, after = (_saved(tmp_path, {**tensors, trained: tensors[trained] + more}) for more in (0, 1))
    assert before != after and before == _saved(tmp_path, tensors)


def _saved(folder: Path, tensors: dict[str, np.ndarray]) -> str:
    save_file(tensors, folder / "model.safetensors")
    assert (folder / "model.safetensors").stat().st_size > 3 << 20
    return identity.folder(folder)


HEADS = {
    "none": b"",
    "too long": b"\xff" * 64,
    "a list": (4).to_bytes(8, "little") + b"[1] ",
    "no JSON": (9).to_bytes(8, "little"),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_weights_without_a_list_of_tensors_are_read_at_many_places(head: bytes, tmp_path: Path) -> None:
    found = []
    for byte in (b"a", b"b"):
        data = bytearray(8 << 20)
        data[: len(head)] = head
        data[3 << 20 : (3 << 20) + 40_000] = byte * 40_000
        (tmp_path / "model.bin").write_bytes(data)
        found.append(identity.folder(tmp_path))
    assert found[0] != found[1]


def test_fingerprints_of_small_folders_stay(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "model.safetensors").write_bytes(b"12345678" * 100)
    assert identity.folder(tmp_path) == "23fc1d48429337ce"  # as before
