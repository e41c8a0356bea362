"""`--model icr-api` against servers of three dialects, with their refusals and faults, prices and the cap."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_served import FakeServed

from icr_tasks.engines.served.client import Unreachable
from icr_tasks.engines.served.dialect import Dialect, read, said_of
from icr_tasks.engines.served.model import IcrAPI, ModelChanged
from icr_tasks.engines.served.price import Price, Usage, budget
from icr_tasks.engines.served.spending import BudgetReached, Spending
from icr_tasks.errors import IcrError
from icr_tasks.metrics.visible import visible

pytest.importorskip("aiohttp")
pytest.importorskip("tenacity")
GREEDY = {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": 64}
PRICE = {"input": 1.0, "output": 10.0}


def request(api: IcrAPI | None, text: str, doc_id: int = 0, kwargs: dict[str, Any] | None = None) -> Any:
    """A request as our tasks make it: a chat where a model is given, else a completion."""
    prompt = api.apply_chat_template([{"role": "user", "content": text}]) if api else text
    return SimpleNamespace(
        args=(prompt, dict(kwargs or GREEDY)),
        found={},
        setting=None,
        task_name="t",
        doc_id=doc_id,
        size=len(text) // 4,
    )


def api(server: FakeServed, **args: Any) -> IcrAPI:
    model = IcrAPI(model="M", base_url=server.url, **{"max_retries": 2, "num_concurrent": 4, **args})
    model.server.pause = 0.01
    return model


def ask(model: IcrAPI, texts: list[str], **kwargs: Any) -> tuple[list[str], list[dict[str, Any]]]:
    requests = [request(model, text, i, {**GREEDY, **kwargs}) for i, text in enumerate(texts)]
    return model.generate_until(requests, disable_tqdm=True), [r.found for r in requests]


@pytest.mark.parametrize("dialect", ["openai", "vllm", "sglang"])
def test_each_dialect_answers_the_same(dialect: str) -> None:
    with FakeServed(lambda p: f"said {p[:3]}STOPnever", dialect=dialect) as server:
        model = api(server, seed=7 if dialect == "vllm" else None)
        said, found = ask(model, ["one", "two", "six"], until=["a1", "a2", "a3", "a4", "STOP"])
        assert said == ["said one", "said two", "said six"]  # the fifth stop counts although four are sent
        last = server.bodies[-1]
        assert len(last.get("stop", [])) in (0, 4)
        if dialect == "openai":
            assert last["max_completion_tokens"] == 64 and "temperature" not in last and "stop" not in last
            assert found[0]["served"]["without"] == ["stop", "temperature"]
        else:
            assert last["max_tokens"] == 64 and last["temperature"] == 0
            assert model.max_length == 200_000 and "without" not in found[0]["served"]
        assert found[0]["usage"] == {"tokens_in": 0, "tokens_out": 10} and found[0]["finish_reason"] == "stop"


def test_an_empty_stop_list_is_not_sent_and_text_prompts_go_to_completions() -> None:
    with FakeServed() as server:
        model = api(server)
        assert model.generate_until([request(None, "plain")], disable_tqdm=True) == ["ok"]
        assert server.bodies[0]["prompt"] == "plain" and "stop" not in server.bodies[0]


def test_what_the_user_asked_for_is_never_dropped() -> None:
    with FakeServed(dialect="openai") as server, pytest.raises(IcrError, match="refuses temperature=0.6"):
        ask(api(server, extra={"temperature": 0.6}), ["one"])
    with FakeServed(dialect="openai") as server, pytest.raises(IcrError, match="refuses temperature=0.6"):
        ask(api(server), ["one"], temperature=0.6, do_sample=True)
    with FakeServed(dialect="sglang") as server, pytest.raises(IcrError, match="refuses seed=5"):
        ask(api(server, seed=5), ["one"])
    with FakeServed(dialect="openai") as server, pytest.raises(IcrError, match="refuses top_k=20"):
        ask(api(server), ["one"], top_k=20)


def test_one_refused_prompt_fails_one_item_and_is_asked_again_later(tmp_path: Path) -> None:
    """The window that the server tells is larger than the one it has."""
    with FakeServed(window=1000, told_window=100_000) as server:
        model = api(server, store=str(tmp_path))
        said, found = ask(model, ["a" * 100, "b" * 40_000, "c" * 100])
        assert said == ["ok", "", "ok"] and "maximum context length is 1000" in found[1]["error"]
        assert not any("error" in f for i, f in enumerate(found) if i != 1) and len(model.store or ()) == 2
        calls = server.calls
        assert ask(model, ["a" * 100, "c" * 100])[0] == ["ok", "ok"] and server.calls == calls


FAULTS = {
    "429": (429, '{"error":{"message":"slow down"}}', {"Retry-After": "0.3"}),
    "500": (500, "Internal Server Error", {}),
    "503": (503, "<html>bad gateway</html>", {"Content-Type": "text/html"}),
    "html": (200, "<!doctype html><html>login</html>", {"Content-Type": "text/html"}),
    "cut": (200, '{"choices": [{"mess', {}),
    "none": (200, '{"choices": [], "model": "M"}', {}),
    "error in 200": (200, '{"error": {"message": "overloaded", "code": 503}}', {}),
    "list": (200, "[1, 2]", {}),
    "number": (200, '{"choices": [{"message": {"content": 5}}]}', {}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_costs_nothing_and_one_that_stays_is_named(name: str) -> None:
    with FakeServed(fault=lambda p, nth: FAULTS[name] if nth == 0 and p == "two" else None) as server:
        since = time.monotonic()
        said, found = ask(api(server), ["one", "two", "six"])
        assert said == ["ok", "ok", "ok"] and "error" not in found[1] and server.calls == 4
        assert name != "429" or time.monotonic() - since >= 0.3  # as long as the server asked for
    with FakeServed(fault=lambda p, nth: FAULTS[name] if p == "two" else None) as server:
        model = api(server)
        said, found = ask(model, ["one", "two", "six"])
        assert said == ["ok", "", "ok"] and found[1]["error"].startswith("server: ")


def test_a_server_that_is_gone_or_broken_ends_the_run_after_what_was_finished(tmp_path: Path) -> None:
    with FakeServed() as server:
        server.fault = lambda p, nth: FAULTS["500"] if server.calls > 1 else None
        model = api(server, store=str(tmp_path), max_retries=0, num_concurrent=1)
        with pytest.raises(Unreachable, match=r"no answer to 5 requests in a row.*finished answers are kept"):
            ask(model, [f"q{i}" for i in range(9)])
        assert server.calls == 6 and len(model.store or ()) == 1
        address = server.url
    with pytest.raises(Unreachable, match="no server at"):
        IcrAPI(model="M", base_url=address)


def test_keys_are_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "Zx9-very-secret-key"
    with FakeServed(key=secret) as server:
        with pytest.raises(Unreachable, match="refuses the key"):
            api(server)
        monkeypatch.setenv("MY_KEY", secret)
        assert ask(api(server, api_key_env="MY_KEY"), ["one"])[0] == ["ok"]
        monkeypatch.setenv("ICR_API_KEY", secret)
        assert ask(api(server), ["one"])[0] == ["ok"]
        model = api(server)
        server.key = "another"  # refused from now on; this server repeats the key it got
        with pytest.raises(Unreachable) as error:
            ask(model, ["two"])
        assert secret not in str(error.value) + caplog.text + json.dumps(model.get_model_info())
    monkeypatch.delenv("ICR_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", secret)  # is for OpenAI's own host alone
    with FakeServed(key=secret) as server, pytest.raises(Unreachable):
        api(server)


def test_concurrency_is_bounded_and_interrupts_leave_nothing_behind(tmp_path: Path) -> None:
    with FakeServed(latency=0.05) as server:
        model = api(server, num_concurrent=3, store=str(tmp_path))
        ask(model, [f"q{i}" for i in range(12)])
        assert server.peak == 3
        requests = [request(model, f"r{i}", i) for i in range(40)]
        running = model.stream(requests, list(range(40)))
        next(running)
        running.close()
        time.sleep(0.2)
        assert server.calls < 30


# ---- who answers -----------------------------------------------------------------------------------------


def test_another_model_under_the_name_is_refused_or_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changing = lambda number: "M-2026-01-01" if number < 2 else "M-2026-03-01"  # noqa: E731
    with FakeServed(answers_as=changing) as server:
        model = api(server, store=str(tmp_path), num_concurrent=1)
        ask(model, ["one", "two"])
        with pytest.raises(ModelChanged, match="'M-2026-01-01' before and as 'M-2026-03-01' now"):
            ask(model, ["three"])
        again = api(server, store=str(tmp_path))  # another process, later: the stored answers tell
        with pytest.raises(ModelChanged):
            ask(again, ["three"])
        recorded = api(server, store=str(tmp_path), on_model_change="record")
        _, [found] = ask(recorded, ["three"])
        assert found["served"]["model"] == "M-2026-03-01"
    with FakeServed(answers_as="something-else") as server:
        ask(api(server), ["one"])
        assert "answers as model 'something-else', not 'M'" in caplog.text


def test_a_server_that_cuts_prompts_is_found_out() -> None:
    def usage(prompt: str, said: str) -> dict[str, int]:
        return {"prompt_tokens": min(len(prompt) // 4, 1024), "completion_tokens": 3}

    with FakeServed(usage=usage) as server:
        said, found = ask(api(server), ["word " * 100, "word " * 8000])
        assert said == ["ok", ""] and "read 1024 tokens of a prompt of" in found[1]["error"]


def test_choices_in_another_order_and_parts_of_a_content() -> None:
    two = [{"index": 1, "message": {"content": "no"}}, {"index": 0, "message": {"content": "yes"}}]
    assert read(json.dumps({"choices": two})).text == "yes"
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert read(json.dumps({"choices": [{"message": {"content": parts}}]})).text == "ab"
    refusal = {
        "choices": [{"message": {"content": None, "refusal": "I cannot"}, "finish_reason": "content_filter"}]
    }
    assert (read(json.dumps(refusal)).text, read(json.dumps(refusal)).finish) == (
        "I cannot",
        "content_filter",
    )


# ---- thoughts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_parsed_thoughts_score_as_unparsed_ones(name: str) -> None:
    parsed = {name: "it may be Rome, no", "content": "Paris"}
    with FakeServed(
        lambda p: parsed if p == "parsed" else "<think>\nit may be Rome, no\n</think>\n\nParis"
    ) as server:
        said, _ = ask(api(server), ["parsed", "unparsed"])
        assert said[0] == said[1] and visible(said[0]).text == "Paris" and visible(said[0]).thoughts
    with FakeServed(lambda p: {name: "endless", "content": None, "finish_reason": "length"}) as server:
        said, found = ask(api(server), ["one"])
        assert not visible(said[0]).closed and found[0]["finish_reason"] == "length"
    with FakeServed(lambda p: {"content": None}) as server:
        assert ask(api(server), ["one"])[0] == [""]


def test_marks_inside_a_thought_do_not_reach_the_answer() -> None:
    said = read(
        json.dumps({"choices": [{"message": {"reasoning": "I write </think> Rome", "content": "Paris"}}]})
    ).text
    assert visible(said or "").text == "Paris"


# ---- money -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (0.1, "does not say which tokens"),
        ("0.1", "does not say which tokens"),
        ({"input": 0.1}, "`output` is missing"),
        ({"input": "0.1", "output": 0.4}, "must be a number in USD per million tokens"),
        ({"input": True, "output": 0.4}, "must be a number"),
        ({"input": 1e-7, "output": 4e-7}, r"looks like a price of one token.*0.1"),
        ({"input": -1, "output": 0.4}, "must be from 0"),
        ({"input": float("nan"), "output": 0.4}, "must be from 0"),
        ({"input": 0.1, "output": 0.4, "unit": "EUR per million tokens"}, "is not USD per million tokens"),
        ({"input": 0.1, "output": 0.4, "unit": "USD per thousand tokens"}, "is not USD per million tokens"),
        ({"input": 0.1, "output": 0.4, "unit": ""}, "is not USD per million tokens"),
        ({"input": 0.1, "outptu": 0.4}, "Did you mean 'output'"),
    ],
)
def test_a_price_without_its_unit_is_refused(given: Any, words: str) -> None:
    with pytest.raises(IcrError, match=words):
        Price.parse(given)


def test_prices_and_caps() -> None:
    price = Price.parse({"input": 0.1, "output": 0.4, "cached": 0.025, "unit": "USD per million tokens"})
    assert price is not None
    usd, told = price.usd(Usage(1_000_000, 400_000, 500_000, 300_000), 9.0)
    assert told and usd == pytest.approx(0.6 * 0.1 + 0.4 * 0.025 + 0.5 * 0.4)
    assert price.usd(Usage(), 9.0) == (9.0, False)
    for bad in (0, -1, True, "20", float("inf")):
        with pytest.raises(IcrError, match="amount above 0 in USD"):
            budget(bad, price)
    with pytest.raises(IcrError, match="nothing says what tokens cost"):
        budget(20, None)


@pytest.mark.parametrize(
    "told",
    [
        {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
        {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4},
            "reasoning_tokens": 3,
        },
        {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "prompt_cache_hit_tokens": 4,
            "reasoning_tokens": 3,
            "prompt_tokens_details": None,
        },
        {
            "input_tokens": 9,
            "output_tokens": 5,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": 3},
        },
    ],
)
def test_usage_in_each_spelling(told: dict[str, Any]) -> None:
    assert Usage.read(told) == Usage(9, 4, 5, 3)
    assert Usage.read("nonsense") == Usage.read({"prompt_tokens": -1}) == Usage()


def test_the_cap_holds_under_concurrency_and_finished_answers_are_kept(tmp_path: Path) -> None:
    """Prompt of 4 bytes, price of a reply 100e-6 USD, worst case (4 + 512 + 640 e-6 x ...) known before it
    is sent."""
    usage = lambda prompt, said: {"prompt_tokens": 100, "completion_tokens": 10}  # noqa: E731
    price = Price(1.0, 10.0)
    most, each = price.at_most(4 + 512, 64), price.usd(Usage(100, None, 10), 0)[0]
    limit = most + 10.5 * each
    with FakeServed(usage=usage, latency=0.01) as server:
        model = api(server, price=PRICE, budget_usd=limit, store=str(tmp_path), num_concurrent=8)
        with pytest.raises(BudgetReached, match=r"finished answers are kept: raise budget_usd"):
            ask(model, [f"q{i:03d}" for i in range(60)])
        assert model.spending.spent <= limit and len(model.store or ()) == server.calls == 11
        again = api(server, price=PRICE, budget_usd=limit, store=str(tmp_path))
        assert again.spending.spent == pytest.approx(11 * each)  # another run does not start from zero
        with pytest.raises(BudgetReached):
            ask(again, ["another"])
        more = api(server, price=PRICE, budget_usd=1.0, store=str(tmp_path))
        said, found = ask(more, [f"q{i:03d}" for i in range(60)])
        assert said == ["ok"] * 60 and server.calls == 60 and found[0]["usage"]["usd"] == pytest.approx(each)


def test_what_a_killed_process_had_under_way_stays_counted(tmp_path: Path) -> None:
    first = Spending(tmp_path, "http://a", "M", 1.0)
    assert first.reserve(0.6) and first.reserve(0.6) is None
    first.close()  # killed: no reply was seen
    second = Spending(tmp_path, "http://a", "M", 1.0)
    assert second.spent == 0.6 and second.reserve(0.6) is None
    ticket = second.reserve(0.4)
    assert ticket
    second.settle(ticket, 0.1)
    third = Spending(tmp_path, "http://a", "M", 1.0)
    assert third.spent == pytest.approx(0.7) and Spending(tmp_path, "http://a", "other", 1.0).spent == 0
    with (tmp_path / third.path.name if third.path else tmp_path).open("ab") as file:
        file.write(b'{"id": "x", "asi')  # a line that a kill cut off
    ticket = third.reserve(0.2)
    assert ticket and Spending(tmp_path, "http://a", "M", 1.0).spent == pytest.approx(0.9)


def test_a_cap_needs_a_store_and_names_are_checked(tmp_path: Path) -> None:
    with FakeServed() as server:
        with pytest.raises(IcrError, match="budget_usd needs store="):
            api(server, price=PRICE, budget_usd=1.0)
        with pytest.raises(IcrError, match="Did you mean 'num_concurrent'"):
            api(server, num_concurent=3)
        with pytest.raises(IcrError, match="needs model=NAME"):
            IcrAPI(model="M")
        with pytest.raises(IcrError, match="not http"):
            IcrAPI(model="M", base_url="localhost:8000/v1")
        for end in ("", "/", "/chat/completions", "/completions"):
            assert IcrAPI(model="M", base_url=server.url + end).server.root == server.url


def test_refusals_are_read_in_every_form() -> None:
    fastapi = (
        '{"detail":[{"type":"extra_forbidden","loc":["body","seed"],"msg":"Extra inputs are not permitted"}]}'
    )
    assert said_of(fastapi)[1] == "seed"
    assert said_of('{"object":"error","message":"too long","code":400}') == ("too long", None, 400)
    assert said_of("<html><b>502</b> Bad gateway</html>")[0] == "502 Bad gateway"
    long = "This model's maximum context length is 4096 tokens. However, you requested 5000 (max_tokens: 64)."
    assert not Dialect().learn(long, None, {"max_tokens": 64}, {})
    assert Dialect().learn("temperature is not supported by this model", None, {"temperature": 0}, {})
