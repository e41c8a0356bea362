"""lm_eval's command line in this process, on scripted models, and a server that lists its model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

TASK = "icr_synth_rag_512"


def cli(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """(exit code, last line of stderr) of `lm_eval ...`, run in this process."""
    from lm_eval.__main__ import cli_evaluate

    from icr_tasks.harness.hooks import environment_once

    scripted()
    task = () if "--tasks" in args else ("--tasks", TASK)
    before, sys.argv = sys.argv, ["lm_eval", *task, *args]
    code = 0
    try:
        with environment_once(), only_ours():
            cli_evaluate()
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        sys.argv = before
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("icr: error")]
    return code, said[-1] if said else ""


@contextmanager
def only_ours() -> Iterator[None]:
    """Index our tasks alone: lm_eval's 14,000 files take seconds a call."""
    import lm_eval.tasks as module

    original = module.TaskManager
    from icr_tasks.benchmarks.sheets import task_dirs

    def manager(**kwargs: Any) -> Any:
        folders = [str(folder) for folder in task_dirs()]
        return original(include_path=folders, include_defaults=False, metadata=kwargs.get("metadata"))

    module.TaskManager = manager  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        module.TaskManager = original  # type: ignore[misc]


def results(out: Path) -> dict[str, Any]:
    return json.loads(sorted(out.rglob("results_*.json"))[-1].read_text())


def samples(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(out.rglob("samples_*.jsonl")) for line in path.open()]


def scripted() -> None:
    """Register `scripted`, which answers rightly, counts its calls and shows how it was asked."""
    import lm_eval.models  # noqa: F401  (first: it would hide the built-in models)
    from lm_eval.api.model import LM
    from lm_eval.api.registry import model_registry, register_model

    if "scripted" in model_registry:
        return

    @register_model("scripted")
    class Scripted(LM):
        calls: list[Any] = []
        loaded = 0

        def __init__(self, say: str = "", **kwargs: Any) -> None:
            super().__init__()
            type(self).loaded += 1
            self.say = say

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            type(self).calls.extend(requests)
            self.asked = [dict(r.args[1]) for r in requests]
            type(self).last = self.asked
            return [self.say or f"The answer is: {r.doc['answers'][0]}" for r in requests]

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
            raise AssertionError("never asked for")

        loglikelihood_rolling = loglikelihood


def model() -> Any:
    from lm_eval.api.registry import get_model

    scripted()
    return get_model("scripted")


@contextmanager
def server(
    *,
    window: int | None = None,
    owner: str = "vllm",
    refuses: str = "",
    listed: Any = ...,
    raw: str | None = None,
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, bodies it got) of an OpenAI-like server; `refuses` is said, with HTTP 400, to every prompt;
    `raw` is the body of every reply."""
    bodies: list[dict[str, Any]] = []
    entry: dict[str, Any] = {"id": "M", "owned_by": owner}
    if window is not None:
        entry["max_model_len"] = window
    models = {"data": [entry]} if listed is ... else listed

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200 if models is not None else 404, models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body)
            if refuses:
                self._send(400, {"error": {"message": refuses}})
                return
            if raw is not None:
                self._send(200, raw)
                return
            text = "The answer is: nobody"
            said = {"message": {"content": text}} if "messages" in body else {"text": text}
            self._send(200, {"choices": [{"index": 0, "finish_reason": "stop", **said}]})

        def _send(self, status: int, value: Any) -> None:
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            kind = "text/html" if isinstance(value, str) and value.startswith("<") else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}/v1", bodies
    finally:
        found.shutdown()
        found.server_close()
