"""A local OpenAI-compatible server for tests and benchmarks: replies by rule, after a delay, with planned
faults.

python tests/fake_endpoint.py 0.1        # in its own process: prints its address, answers until stdin closes
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# (status, body, headers) instead of a normal answer; None answers normally.
Fault = tuple[int, str, dict[str, str]] | None


class FakeEndpoint:
    """`with FakeEndpoint(reply) as server: server.url`. `reply` maps a prompt to the text the model says, or
    to a dict that is merged into the message.

    `fault(prompt, nth)` may replace the answer to the nth call (from 0) with that prompt. Records `prompts`,
    `headers`, `calls` and the highest number of calls at the same time, `peak`. `whole`: a chat's prompt is all
    of its messages, not the first alone.
    """

    def __init__(
        self,
        reply: Callable[[str], Any],
        *,
        latency: float = 0.0,
        fault: Callable[[str, int], Fault] | None = None,
        port: int = 0,
        whole: bool = False,
    ) -> None:
        self.reply, self.latency, self.fault = reply, latency, fault or (lambda prompt, nth: None)
        self._whole = whole
        self.prompts: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.peak = self._now = 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, text, headers = outer._answer(self.path, body, dict(self.headers))
                data = text.encode("utf-8", "surrogatepass")
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *args: object) -> None:
                """A client that went away is part of the tests."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def calls(self) -> int:
        return len(self.prompts)

    def _answer(
        self, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> tuple[int, str, dict[str, str]]:
        chat = path.split("?")[0].endswith("/chat/completions")
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        if isinstance(prompt, list):  # a batch: one choice a prompt, the last one first
            single = [self._answer(path, {**body, "prompt": one}, headers) for one in prompt]
            if (
                bad := next((one for one in single if one[0] != 200 or '"text"' not in one[1]), None)
            ) is not None:
                return bad
            made = [{**json.loads(one[1])["choices"][0], "index": i} for i, one in enumerate(single)]
            return 200, json.dumps({**json.loads(single[0][1]), "choices": made[::-1]}), {}
        if self._whole:  # the system text does not ask anything
            prompt = "\n\n".join(m["content"] for m in body["messages"]) if chat else str(prompt)
        with self._lock:
            nth = self._seen[prompt]
            self._seen[prompt] += 1
            self.prompts.append(prompt)
            self.headers.append({**{k.lower(): v for k, v in headers.items()}, ":path": path})
            self.bodies.append(body)
            self._now += 1
            self.peak = max(self.peak, self._now)
        time.sleep(self.latency)
        with self._lock:
            self._now -= 1
        if fault := self.fault(prompt, nth):
            return fault
        text = self.reply(prompt)
        text, finish = text if isinstance(text, tuple) else (text, "stop")
        message = {"role": "assistant", **(text if isinstance(text, dict) else {"content": text})}
        finish = message.pop("finish_reason", finish)
        choice = {"index": 0, "finish_reason": finish}
        choice |= {"message": message} if chat else {"text": message["content"]}
        return (
            200,
            json.dumps({"id": "x", "object": "x", "created": 0, "model": "fake", "choices": [choice]}),
            {},
        )

    def __enter__(self) -> FakeEndpoint:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()


PLAN: dict[int, Fault] = {
    1: (429, '{"error":{"message":"slow down"}}', {"Retry-After": "0.05"}),
    2: (429, '{"error":{"message":"slow down"}}', {}),
    3: (503, "upstream connect error", {"Content-Type": "text/plain"}),
    4: (200, "<html>garbage</html>", {"Content-Type": "text/html"}),
    5: (200, '{"choices":[{"message":{"content":"I would rather not say."},"finish_reason":"stop"}]}', {}),
}


def number(prompt: str) -> int:
    """The item a prompt of the throughput benchmark is about."""
    return int(prompt.split("Question ", 1)[1].split("?", 1)[0])


def planned(prompt: str, nth: int) -> Fault:
    """Every second block of five items meets its fault on the first call."""
    item = number(prompt)
    return PLAN[item % 5 + 1] if nth == 0 and (item // 5) % 2 else None


def main() -> None:
    """Serve the benchmark's judge; a line on stdin is answered with the calls so far and the highest
    concurrency."""
    reply = lambda p: f"Evaluation evidence: x\nRating: [[{number(p) % 100 + 1}]]"  # noqa: E731
    with FakeEndpoint(reply, latency=float(sys.argv[1]), fault=planned) as server:
        print(server.url, flush=True)
        for _ in sys.stdin:
            print(server.calls, server.peak, flush=True)


if __name__ == "__main__":
    main()
