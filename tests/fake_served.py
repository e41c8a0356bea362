"""A served model for tests: an OpenAI-compatible server in the dialect of OpenAI, vLLM or SGLang, with what
each refuses, usage, thoughts, and planned faults."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, str, dict[str, str]]  # status, body, headers
_PARAMETERS = frozenset(
    [
        *("model", "messages", "prompt", "temperature", "stop", "seed", "top_p", "n", "reasoning_effort"),
        *("max_tokens", "max_completion_tokens", "_bytes", "_window"),
    ]
)


def openai(body: dict[str, Any]) -> Answer | None:
    """What a reasoning model at OpenAI refuses."""

    def refuse(param: str, code: str, said: str) -> Answer:
        error = {"message": said, "type": "invalid_request_error", "param": param, "code": code}
        return 400, json.dumps({"error": error}), {}

    if "max_tokens" in body:
        said = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead."
        )
        return refuse("max_tokens", "unsupported_parameter", said)
    if body.get("temperature", 1) != 1:
        said = (
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) "
            "value is supported."
        )
        return refuse("temperature", "unsupported_value", said)
    if "stop" in body:
        return refuse(
            "stop", "unsupported_parameter", "Unsupported parameter: 'stop' is not supported with this model."
        )
    if unknown := sorted(set(body) - _PARAMETERS):
        return refuse(
            unknown[0], "unknown_parameter", f"Unrecognized request argument supplied: {unknown[0]}"
        )
    return None


def vllm(body: dict[str, Any]) -> Answer | None:
    """vLLM takes nearly everything, and names its window when a prompt is too long."""
    if body["_bytes"] / 4 + body.get("max_tokens", 0) > body["_window"]:
        said = (
            f"'max_tokens' or 'max_completion_tokens' is too large: {body.get('max_tokens')}. This "
            "model's maximum context "
            f"length is {body['_window']} tokens and your request has {body['_bytes'] // 4} input tokens."
        )
        return (
            400,
            json.dumps({"error": {"message": said, "type": "BadRequestError", "param": None, "code": 400}}),
            {},
        )
    return None


def sglang(body: dict[str, Any]) -> Answer | None:
    """A strict FastAPI front: unknown fields are 422 with a list of details."""
    if "seed" in body or "max_completion_tokens" in body:
        name = "seed" if "seed" in body else "max_completion_tokens"
        detail = [
            {
                "type": "extra_forbidden",
                "loc": ["body", name],
                "msg": "Extra inputs are not permitted",
                "input": 1,
            }
        ]
        return 422, json.dumps({"detail": detail}), {}
    if body["_bytes"] / 4 > body["_window"]:
        said = (
            f"The input ({body['_bytes'] // 4} tokens) is longer than the model's context length "
            f"({body['_window']} tokens)."
        )
        return (
            400,
            json.dumps(
                {"object": "error", "message": said, "type": "BadRequestError", "param": None, "code": 400}
            ),
            {},
        )
    return None


DIALECTS = {"openai": openai, "vllm": vllm, "sglang": sglang}


class FakeServed:
    """`with FakeServed(reply) as server: server.url`. `reply(prompt)` gives the content, or a dict merged
    into the message (`{"content": None, "reasoning_content": ...}`); `fault(prompt, nth)` may answer in its
    place.

    `usage(prompt, content)` gives the usage; `answers_as` the model name of replies (a callable gets the
    number of the call); `key` is asked for where it is set.
    """

    def __init__(
        self,
        reply: Callable[[str], Any] = lambda prompt: "ok",
        *,
        dialect: str = "vllm",
        model: str = "M",
        answers_as: str | Callable[[int], str] | None = None,
        fault: Callable[[str, int], Answer | None] = lambda prompt, nth: None,
        usage: Callable[[str, str], dict[str, Any] | None] | None = None,
        window: int | None = 200_000,
        told_window: int | None = None,
        key: str | None = None,
        latency: float = 0.0,
        finish: str = "stop",
    ) -> None:
        self.reply, self.refuse, self.model, self.fault = reply, DIALECTS[dialect], model, fault
        self.answers_as = answers_as or model
        self.usage = usage or (
            lambda prompt, said: {"prompt_tokens": len(prompt) // 4, "completion_tokens": 10}
        )
        self.dialect, self.window, self.told = dialect, window or 200_000, told_window or window
        self.key, self.latency, self.finish = key, latency, finish
        self.bodies: list[dict[str, Any]] = []
        self.peak = self._now = 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._send(*outer.models(dict(self.headers)))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._send(*outer.answer(self.path, body, dict(self.headers)))

            def _send(self, status: int, text: str, headers: dict[str, str]) -> None:
                data = text.encode()
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

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def calls(self) -> int:
        return len(self.bodies)

    def models(self, headers: dict[str, str]) -> Answer:
        if self.key and headers.get("Authorization") != f"Bearer {self.key}":
            return 401, '{"error":{"message":"Incorrect API key provided"}}', {}
        entry: dict[str, Any] = {"id": self.model, "object": "model", "owned_by": self.dialect}
        if self.dialect != "openai":
            entry["max_model_len"] = self.told
        return 200, json.dumps({"object": "list", "data": [entry]}), {}

    def answer(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        chat = path.split("?")[0].endswith("/chat/completions")
        prompt = "\n".join(m["content"] for m in body["messages"]) if chat else body["prompt"]
        with self._lock:
            nth, number = self._seen[prompt], len(self.bodies)
            self._seen[prompt] += 1
            self.bodies.append(body)
            self._now += 1
            self.peak = max(self.peak, self._now)
        time.sleep(self.latency)
        with self._lock:
            self._now -= 1
        if self.key and headers.get("Authorization") != f"Bearer {self.key}":
            return (
                401,
                json.dumps({"error": {"message": f"Incorrect API key: {headers.get('Authorization')}"}}),
                {},
            )
        if found := self.fault(prompt, nth):
            return found
        if found := self.refuse({**body, "_bytes": len(prompt), "_window": self.window}):
            return found
        said = self.reply(prompt)
        message = {"role": "assistant", **(said if isinstance(said, dict) else {"content": said})}
        finish = message.pop("finish_reason", self.finish)
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        choice |= {"message": message} if chat else {"text": message["content"]}
        name = self.answers_as(number) if callable(self.answers_as) else self.answers_as
        made: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": name,
            "choices": [choice],
        }
        if (usage := self.usage(prompt, str(message.get("content")))) is not None:
            made["usage"] = usage
        return 200, json.dumps(made), {}

    def __enter__(self) -> FakeServed:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()
