"""`--model icr-api` where a server answers with trouble: what is no answer, whose trouble it is, who answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_served import FakeServed
from test_served import api, ask, request

from icr_tasks.engines.served.client import Unreachable
from icr_tasks.engines.served.dialect import Dialect

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


@pytest.mark.parametrize(
    ("said", "renamed"),
    [
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", False),
        ("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]", False),
        ("max_tokens: must be less than or equal to 8192", False),
        ("Unsupported value: 'max_tokens' does not support 16000 with this model", False),
        ("max_tokens of 16000 is not supported, it is at most 8192", False),
        ("input length and `max_tokens` exceed context limit: 198000 + 8192 > 200000", False),
        ("'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", True),
        ("Please use max_completion_tokens in place of max_tokens", True),
        ("max_tokens: Extra inputs are not permitted (extra_forbidden)", True),
        ("Unrecognized request argument supplied: max_tokens", True),
    ],
)
def test_another_name_is_tried_only_where_the_name_is_refused(said: str, renamed: bool) -> None:
    dialect = Dialect()
    assert dialect.learn(said, None, {"max_tokens": 16000}, {}) == renamed
    assert dialect.length == ("max_completion_tokens" if renamed else "max_tokens")


def test_a_refused_length_fails_items_with_the_servers_sentence() -> None:
    said = "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"
    refused = (400, json.dumps({"error": {"message": said}}), {})
    with FakeServed() as server:
        server.refuse = lambda body: refused if body.get("max_tokens", 0) > 8192 else None
        texts, found = ask(api(server), ["one", "two"], max_gen_toks=16000)
        assert texts == ["", ""] and all(said in one["error"] for one in found)
        assert server.calls == 2 and all("max_tokens" in body for body in server.bodies)


def forbidden(said: str) -> tuple[int, str, dict[str, str]]:
    return 403, json.dumps({"error": {"code": 403, "message": said}}), {}


@pytest.mark.parametrize("said", ["Your input was flagged by moderation", "Forbidden"])
def test_a_forbidden_prompt_fails_one_item_on_every_run(said: str, tmp_path: Path) -> None:
    with FakeServed(fault=lambda p, nth: forbidden(said) if p == "two" else None) as server:
        for texts in (["one", "two", "six"], ["two"]):  # what is stored tells that the key is good
            model = api(server, store=str(tmp_path), num_concurrent=1)
            requests = ask(model, ["one", *texts])[1]
            assert said in next(f["error"] for f in requests if "error" in f) and len(model.store or ()) >= 2
    with FakeServed(fault=lambda p, nth: forbidden(said)) as server:
        if said == "Forbidden":
            with pytest.raises(Unreachable, match="refuses access"):
                ask(api(server), ["one"])
        else:  # nobody answered, and the reason is the prompt
            assert "flagged" in ask(api(server), ["one"])[1][0]["error"]


def test_a_key_that_is_no_longer_good_ends_the_run(tmp_path: Path) -> None:
    with FakeServed(fault=lambda p, nth: forbidden("Forbidden") if p != "one" else None) as server:
        model = api(server, num_concurrent=1)
        ask(model, ["one"])
        with pytest.raises(Unreachable, match="no answer to 5 requests in a row"):
            ask(model, [f"q{i}" for i in range(9)])


def test_a_reply_without_a_model_name_tells_nothing() -> None:
    with FakeServed(answers_as=lambda n: "M-2026" if n % 2 else "") as server:
        model = api(server, num_concurrent=1)
        assert ask(model, ["a", "b", "c", "d"])[0] == ["ok"] * 4
        assert model.get_model_info()["served"]["answered_as"] == {"M-2026": 2}


@pytest.mark.parametrize("tokenizer", ["M", "org/other", None])
def test_a_prompt_that_was_cut_by_half(
    tokenizer: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """7,900 tokens, of which a window of 4,096 was read."""
    with FakeServed(usage=lambda p, said: {"prompt_tokens": min(len(p) // 5, 4096)}) as server:
        model = api(server, store=str(tmp_path))
        asked = [request(model, "word " * n, n) for n in (7900, 7800, 1000, 7700)]
        for one, n in zip(asked, (7900, 7800, 1000, 7700), strict=True):
            one.size, one.counted_by = n, tokenizer
        model.generate_until(asked[:2], disable_tqdm=True)
        whole = tokenizer != "M"  # another tokenizer, or a guess: nobody can say
        assert all(("error" not in one.found) == whole for one in asked[:2])
        said = [r for r in caplog.records if "by the tokenizer org/other" in r.getMessage()]
        assert len(said) == (tokenizer == "org/other")
        model.generate_until(asked[2:3], disable_tqdm=True)
        model.generate_until(
            asked[3:], disable_tqdm=True
        )  # the third of which as many tokens were read: a window
        assert "error" not in asked[2].found and ("error" in asked[3].found) == (tokenizer is not None)
        assert len(model.store or ()) == {"M": 1, "org/other": 3, None: 4}[tokenizer]


def test_a_text_of_which_the_run_s_tokenizer_makes_more_tokens_is_no_cut() -> None:
    """English is counted alike, Chinese is not: two tokenizers, and nothing was cut."""
    with FakeServed(
        usage=lambda p, said: {"prompt_tokens": len(p) // 5 if "word" in p else len(p) * 2 // 3}
    ) as server:
        model = api(server)
        texts = ["word " * 2000, *("\u4e2d" * n for n in (2700, 2600, 2500, 2400))]
        asked = [request(model, text, n) for n, text in enumerate(texts)]
        for one, text in zip(asked, texts, strict=True):
            one.size, one.counted_by = (2050 if "word" in text else len(text)), "org/other"
        assert model.generate_until(asked, disable_tqdm=True) == ["ok"] * 5


def test_escapes_of_messages_are_no_prompt_that_was_cut() -> None:
    """The count is of JSON, in which each line break is a character and up to two tokens more."""
    text = "1\n" * 1000
    with FakeServed(usage=lambda p, said: {"prompt_tokens": 2010}) as server:
        model = api(server)
        asked = request(model, text)
        asked.size, asked.counted_by = 3010, "M"
        model.generate_until([asked], disable_tqdm=True)
        assert "error" not in asked.found
