"""The judge's client and store against a local server that fails in every way, and secrets that must not
show."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks.metrics.judge import BadReply, Case, Judge, JudgeConfig, JudgeUnavailable
from icr_tasks.metrics.judge.endpoint import Endpoint, Outcome, Unreachable, _Again, _Asking, ask_all

pytest.importorskip("openai")
KEY = "sk-do-not-show-me"


def cases(n: int) -> list[Case]:
    return [Case(f"Question {i}?", f"gold {i}", f"answer {i}", str(i)) for i in range(n)]


def item(prompt: str) -> int:
    return int(prompt.split("Question ", 1)[1].split("?", 1)[0])


def rating(prompt: str) -> str:
    return f"Evaluation evidence: x\nRating: [[{item(prompt) + 1}]]"


def config(url: str, **more: Any) -> JudgeConfig:
    return JudgeConfig(url, "judge", **{"store": None, "pause": 0.01, **more})


def refused() -> str:
    """An address where nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/v1"


def test_order_bounded_concurrency_and_equal_cases_once(tmp_path: Path) -> None:
    asked = [*cases(30), *cases(30)]
    with FakeEndpoint(rating, latency=0.02) as server:
        judge = Judge(config(server.url, concurrency=7, store=tmp_path / "v.sqlite"))
        verdicts = judge.score(asked)
        assert [v.rating for v in verdicts] == [i + 1 for i in range(30)] * 2 and [
            v.id for v in verdicts
        ] == [c.id for c in asked]
        assert server.calls == 30 and 2 <= server.peak <= 7
        assert server.bodies[0]["temperature"] == 0 and server.bodies[0]["max_tokens"] == 4096
        again = Judge(config(server.url, store=tmp_path / "v.sqlite")).score(asked)
        assert server.calls == 30 and all(v.cached for v in again)
        assert [(v.rating, v.reply) for v in again] == [(v.rating, v.reply) for v in verdicts]


def test_every_kind_of_passing_fault_is_survived() -> None:
    plan: list[Any] = [
        (429, "{}", {"Retry-After": "0.01"}),
        (429, "{}", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        (429, "{}", {"Retry-After": "-5"}),
        (503, "busy", {"Content-Type": "text/plain"}),
        (500, "", {}),
        (408, "", {}),
        (200, "", {}),
        (200, "<html>", {"Content-Type": "text/html"}),
        (200, "null", {}),
        (200, '{"choices": []}', {}),
        (200, '{"choices": [{"message": null}]}', {}),
        (200, '{"choices": [{"message": {"content": 7}}]}', {}),
        (200, '{"choices": [{"message": {"content": "no rating"}}]}', {}),
        (200, '{"choices": [{"message": {"content": null}}]}', {}),
        (200, "[" * 5000, {}),
    ]
    with FakeEndpoint(
        rating, fault=lambda p, nth: plan[item(p)] if nth == 0 and item(p) < len(plan) else None
    ) as server:
        verdicts = Judge(config(server.url)).score(cases(len(plan) + 5))
        assert [v.rating for v in verdicts] == [i + 1 for i in range(len(plan) + 5)]
        assert server.calls == 2 * len(plan) + 5


def test_failures_are_failures_kept_raw_and_asked_again_next_time(tmp_path: Path) -> None:
    path, well = tmp_path / "v.sqlite", threading.Event()

    def reply(prompt: str) -> Any:
        if well.is_set() or item(prompt) > 2:
            return rating(prompt)
        return ["I refuse.", "Rating: [[0]]", ("Rating: [[9", "length")][item(prompt)]

    with FakeEndpoint(reply) as server:
        verdicts = Judge(config(server.url, store=path)).score(cases(5))
        assert [v.status for v in verdicts] == ["failed"] * 3 + ["ok"] * 2
        assert [v.score for v in verdicts[:3]] == [None] * 3 and verdicts[0].reply == "I refuse."
        assert (
            "no [[rating]]" in verdicts[0].reason
            and "not within" in verdicts[1].reason
            and "cut off after 4096" in verdicts[2].reason
        )
        rows = sqlite3.connect(path).execute("SELECT item, status, reply, value FROM replies").fetchall()
        assert sorted(r[0] for r in rows) == sorted(["0"] * 3 + ["1"] * 3 + ["2"] * 3 + ["3", "4"])
        assert {r[2] for r in rows if r[0] == "0"} == {"I refuse."} and all(
            r[3] is None for r in rows if r[1] == "failed"
        )
        well.set()
        before = server.calls
        assert [v.rating for v in Judge(config(server.url, store=path)).score(cases(5))] == [1, 2, 3, 4, 5]
        assert server.calls - before == 3


def test_one_impossible_request_does_not_end_the_batch() -> None:
    for status in (400, 413, 500):
        with FakeEndpoint(
            rating,
            fault=lambda p, n, s=status: (
                (s, '{"error":{"message":"too long"}}', {}) if item(p) == 2 else None
            ),
        ) as server:
            verdicts = Judge(config(server.url, concurrency=1, retries=1)).score(cases(5))
            assert [v.ok for v in verdicts] == [True, True, False, True, True]
            assert f"HTTP {status}" in verdicts[2].reason and "too long" in verdicts[2].reason


def test_unreachable_ends_with_exit_code_3_and_keeps_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    with pytest.raises(JudgeUnavailable, match="does not answer") as info:
        Judge(config(refused(), retries=1)).score(cases(8))
    assert info.value.exit_code == 3 and not any(v.ok for v in info.value.verdicts)
    gone = threading.Event()

    def fault(prompt: str, nth: int) -> Any:
        if item(prompt) >= 4:
            gone.set()
        return (503, "down", {}) if gone.is_set() else None

    with FakeEndpoint(rating, fault=fault) as server:
        with pytest.raises(JudgeUnavailable) as info:
            Judge(config(server.url, concurrency=1, retries=1, store=path)).score(cases(20))
        assert [v.rating for v in info.value.verdicts if v.ok] == [1, 2, 3, 4]
        assert server.calls < 15  # three requests in a row given up, not all sixteen
    with FakeEndpoint(rating) as server:
        assert [v.rating for v in Judge(config(server.url, store=path)).score(cases(20))] == [
            i + 1 for i in range(20)
        ]
        assert server.calls == 16


@pytest.mark.parametrize(
    ("status", "says"), [(401, "refuses the key"), (403, "refuses access"), (404, "does not know")]
)
def test_refusal_for_all_is_told_at_once_and_without_the_key(
    status: int, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"error": {"message": f"bad key {KEY}"}})
    with (
        FakeEndpoint(rating, fault=lambda p, n: (status, body, {})) as server,
        caplog.at_level(logging.DEBUG),
    ):
        with pytest.raises(JudgeUnavailable, match=says) as info:
            Judge(config(server.url, api_key=KEY, concurrency=4)).score(cases(20))
        assert server.calls <= 4 and server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(info.value) and KEY not in repr(info.value) and KEY not in caplog.text


def test_a_server_that_hangs_or_trickles_is_given_up(tmp_path: Path) -> None:
    with FakeEndpoint(rating, latency=5) as server:
        started = time.monotonic()
        with pytest.raises(JudgeUnavailable, match="no answer within 0.2 s"):
            Judge(config(server.url, timeout=0.2)).score(cases(3))
        assert time.monotonic() - started < 4
    listener = socket.create_server(("127.0.0.1", 0))

    def trickle() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        try:
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.05)
        except OSError:
            connection.close()

    threading.Thread(target=trickle, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    with pytest.raises(JudgeUnavailable, match="no answer within"):
        Judge(config(url, timeout=0.4, retries=0)).score(cases(1))


def test_inside_a_running_loop() -> None:
    async def notebook(url: str) -> list[float | None]:
        return [v.rating for v in Judge(config(url)).score(cases(3))]

    with FakeEndpoint(rating) as server:
        assert asyncio.run(notebook(server.url)) == [1, 2, 3]
    with pytest.raises(JudgeUnavailable):
        asyncio.run(notebook(refused()))


def test_odd_characters_travel() -> None:
    odd = [Case("Question 0?", "gold\ud800", "emoji \U0001f600 nul \x00 lone \udfff", "1")]
    with FakeEndpoint(lambda p: "ok \ud83d \x00\nRating: [[7]]") as server:
        [verdict] = Judge(config(server.url)).score(odd)
        assert verdict.rating == 7 and "\U0001f600" in server.prompts[0]


def test_completions_api_extra_fields_and_basic_auth() -> None:
    with FakeEndpoint(rating) as server:
        url = server.url.replace("http://", "http://me:p%40ss@") + "?api-version=7"
        more = {"api": "completions", "extra": {"top_p": 1, "max_tokens": None, "max_completion_tokens": 9}}
        assert Judge(config(url, **more)).score(cases(1))[0].ok
        body, headers = server.bodies[0], server.headers[0]
        assert (
            body["prompt"].startswith("[Question]")
            and body["top_p"] == 1
            and body["max_completion_tokens"] == 9
        )
        assert (
            "max_tokens" not in body
            and headers["authorization"].startswith("Basic ")
            and headers[":path"].endswith("?api-version=7")
        )


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda v: (
            st.lists(v, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "text", "finish_reason"]), v, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_any_response_body_is_a_reply_or_a_retry(body: Any) -> None:
    asking = _Asking(Endpoint("http://x/v1", "m"), lambda n, r: r, lambda n, o: None)
    for text in (json.dumps(body), json.dumps({"choices": [body]}), str(body)):
        try:
            assert isinstance(asking.read(text)[0], str)
        except _Again as error:
            assert str(error)


def test_ask_all_reports_as_it_goes() -> None:
    seen: list[int] = []

    def accept(n: int, reply: str) -> str:
        if reply == "bad":
            raise BadReply("bad")
        return reply.upper()

    with FakeEndpoint(lambda p: "bad" if p == "b" else p) as server:
        out = ask_all(
            Endpoint(server.url, "m", chat=False), ["a", "b", "c"], accept, lambda n, o: seen.append(n)
        )
    assert (
        [o.value for o in out] == ["A", None, "C"]
        and sorted(seen) == [0, 1, 2]
        and out[1] == Outcome(None, "bad", ["bad"] * 3)
    )
    assert ask_all(Endpoint("http://nobody/v1", "m"), [], accept) == []
    with pytest.raises(Unreachable):
        ask_all(Endpoint(refused(), "m", retries=0), ["a"], accept)


def test_a_redirect_is_not_followed_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with FakeEndpoint(rating) as other:
        away = f"http://user:{KEY}@{other.url.removeprefix('http://')}/chat/completions"
        with (
            FakeEndpoint(rating, fault=lambda p, n: (307, "", {"Location": away})) as server,
            pytest.raises(Unreachable, match="sends on to 127.0.0.1:.* was not followed") as caught,
        ):
            ask_all(Endpoint(server.url, "judge"), ["Question 1?"], lambda i, reply: reply)
        assert other.calls == 0 and KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "told"), [("judge", True), ("fake", False), ("org/fake", False), ("fake-2026", False)]
)
def test_another_model_in_the_reply_is_told_once(
    asked: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The local server says it is `fake`."""
    with FakeEndpoint(rating) as server, caplog.at_level(logging.WARNING):
        found = ask_all(Endpoint(server.url, asked), ["Question 1?", "Question 2?"], lambda i, reply: reply)
    assert all(o.value for o in found)
    assert [r.getMessage() for r in caplog.records if "answers as model" in r.getMessage()] == (
        [f"{server.url} answers as model 'fake', not {asked!r}"] if told else []
    )
