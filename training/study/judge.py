"""A constructed judge for studies at toy scale: an OpenAI-compatible server in this process that decides by
rule, no model. It reads the prompt of rubric `paper` (arXiv 2601.18527, Table 6).

Reasoning is met by a solution with a step and an answer, grounding by one that copies a relevant document,
correctness by the recorded answer. Its verdicts say nothing about any real judge.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from icr_tasks.errors import IcrError
from icr_tasks.metrics.answers import subem_word
from icr_tasks.metrics.extract import extract_answer

_ASKED = re.compile(
    r"\n\[Relevant Documents\]: (.*?)\n\[Correct Answer\]: (.*?)\n\[AI Model Solution\]: (.*?)\n---\n", re.S
)
_TAG = re.compile(r"\[DOC \d+\]")


def verdict(prompt: str) -> str:
    """The judge's reply to a prompt of rubric `paper`: three boxed criteria."""
    found = _ASKED.search(prompt)
    if not found:
        return "not a prompt of rubric `paper`"
    documents, gold, solution = found.groups()
    texts = [line.strip() for line in _TAG.sub("\n", documents).splitlines() if len(line.split()) > 3]
    met = (
        "Step" in solution and bool(extract_answer(solution).text),
        any(text in solution for text in texts),
        bool(subem_word(extract_answer(solution).text, (gold,))),
    )
    return "\n".join(f"\\boxed{{Criterion {i}: {int(m)}}}" for i, m in enumerate(met, 1))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = verdict(body["messages"][-1]["content"])
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
        }
        used = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        data = json.dumps(
            {"id": "constructed", "object": "chat.completion", "choices": [choice], "usage": used}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@contextmanager
def served(port: int) -> Iterator[None]:
    """The judge at http://127.0.0.1:PORT/v1 while the block runs; port 0: none. IcrError for a taken port."""
    if not port:
        yield
        return
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    except OSError as error:
        raise IcrError(f"the study's judge cannot listen on port {port}: {error}; free it") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
