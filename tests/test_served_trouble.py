"""`--model icr-api` where a server answers with trouble: what is no answer, whose trouble it is, who answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_served import FakeServed
from test_served import api, ask

pytest.importorskip("aiohttp")
pytest.importorskip("tenacity")


def reply(**choice: Any) -> tuple[int, str, dict[str, str]]:
    message = {"role": "assistant", "content": "The ans"}
    return 200, json.dumps({"model": "M", "choices": [{"index": 0, "message": message, **choice}]}), {}


GIVEN_UP = {
    "error": reply(finish_reason="error", error={"code": 502, "message": "Provider disconnected"}),
    "no error told": reply(finish_reason="error"),
    "abort": reply(finish_reason="abort"),
    "flagged": reply(finish_reason="error", error={"code": 403, "message": "flagged"}),
}


@pytest.mark.parametrize("name", GIVEN_UP)
def test_an_answer_that_the_server_gave_up_on_is_asked_again_and_never_stored(
    name: str, tmp_path: Path
) -> None:
    with FakeServed(fault=lambda p, nth: GIVEN_UP[name] if p == "two" else None) as server:
        model = api(server, store=str(tmp_path))
        said, found = ask(model, ["one", "two", "six"])
        assert said == ["ok", "", "ok"] and found[1]["error"].startswith("server: ")
        assert server.calls == (3 if name == "flagged" else 5) and len(model.store or ()) == 2
        server.fault = lambda p, nth: None
        assert ask(model, ["one", "two", "six"])[0] == ["ok"] * 3
