"""Servers of retrieval that send on elsewhere: neither the key nor the texts go to a host that nobody named."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from icr_tasks.context.retrieval import asker, engines
from icr_tasks.errors import IcrError


class Elsewhere(BaseHTTPRequestHandler):
    """Answers everything, and remembers who came with what."""

    seen: list[Any] = []

    def do_GET(self) -> None:
        self.seen.append((self.command, self.headers.get("Authorization")))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        return None


class Sends(Elsewhere):
    """Sends every request on."""

    code, to = 302, ""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.code)
        self.send_header("Location", self.to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    servers = [HTTPServer(("127.0.0.1", 0), kind) for kind in (Elsewhere, Sends)]
    for server in servers:
        Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Elsewhere, "seen", [])
    monkeypatch.setattr(Sends, "to", f"http://localhost:{servers[0].server_port}/v1/x")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    yield f"http://127.0.0.1:{servers[1].server_port}/v1"
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(sends: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sends, "code", code)
    with pytest.raises(IcrError, match=str(code)):
        asker.post(f"{sends}/rerank", {"query": "private"})
    assert engines.ask(sends, "models") is None
    pytest.importorskip("openai")
    with pytest.raises(IcrError, match="embedding server"):
        engines.load({"engine": "openai", "url": sends}, "m", None).encode(["private"])
    assert Elsewhere.seen == []
