"""How many tokens a prompt may have, who says so, and what is not cut in silence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from flagkit import TASK, cli, results, samples, server

from icr_tasks.context import window
from icr_tasks.errors import IcrError

CHAT = ("--model", "local-chat-completions", "--apply_chat_template", "--limit", "3")
TEXT = ("--model", "local-completions", "--limit", "3")
LONG = "icr_synth_rag_2k"
SHORT = ("--gen_kwargs", "max_gen_toks=16")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.tokenizer().save_pretrained(folder)
    return folder


def args(url: str, end: str, tokenizer: Path, more: str = "") -> tuple[str, ...]:
    """A byte a token."""
    given = f"model=M,base_url={url}{end},max_retries=1{more}"
    return ("--model_args", given, "--metadata", json.dumps({"tokenizer": str(tokenizer)}))


def sheet(out: Path, task: str = TASK) -> dict[str, Any]:
    return results(out)["configs"][task]["metadata"]["icr"]


@pytest.mark.parametrize("end", ["/chat/completions", "/completions"])
def test_a_server_that_says_nothing_gets_whole_prompts(
    end: str, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = CHAT if "chat" in end else TEXT
    with server(listed=None) as (url, bodies):
        own = f",tokenizer={tokenizer},tokenizer_backend=huggingface" if kind is TEXT else ""
        out = ("--log_samples", "--output_path", str(tmp_path))
        assert cli(capsys, *kind, *args(url, end, tokenizer, own), *out, "--tasks", LONG) == (0, "")
    assert results(tmp_path)["results"][LONG]["truncated,none"] == 0.0
    told = sheet(tmp_path, LONG)
    assert told["max_model_len"] is None and "does not say" in told["window"]
    digests = [json.loads(row["arguments"]["gen_args_0"]["arg_0"]) for row in samples(tmp_path)]
    assert max(d["n_prompt_tokens"] for d in digests) > 2048
    if kind is TEXT:  # tokens were sent: as many as were counted, not lm-eval's 2047
        assert sorted(len(b["prompt"][0]) for b in bodies) == sorted(d["n_prompt_tokens"] for d in digests)
    # no stop strings: the parameter is left out (a tokenizer here adds the end of text)
    assert all(body.get("stop", ["</s>"]) == ["</s>"] for body in bodies)


def test_the_server_s_window_counts_and_a_cut_of_most_items_is_refused(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(window=1024) as (url, bodies):
        code, said = cli(capsys, *CHAT, *SHORT, *args(url, "/chat/completions", tokenizer))
        assert code == 2 and "max_length=" in said and "overflow" in said and "1024" in said, said
        assert not bodies
        given = args(url, "/chat/completions", tokenizer)
        asked = json.dumps({"tokenizer": str(tokenizer), "overflow": "truncate"})
        out = ("--log_samples", "--output_path", str(tmp_path))
        assert cli(capsys, *CHAT, *SHORT, *given[:3], asked, *out) == (0, "")
    assert results(tmp_path)["results"][TASK]["truncated,none"] == 1.0  # in lm_eval's table
    assert sheet(tmp_path)["max_model_len"] == 1024 and len(bodies) == 3


def test_the_user_s_window_is_a_wish(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(window=100_000) as (url, bodies):
        out = ("--log_samples", "--output_path", str(tmp_path))
        given = args(url, "/chat/completions", tokenizer, ",max_length=1024")
        assert cli(capsys, *CHAT, *SHORT, *given, *out) == (0, "")
    assert results(tmp_path)["results"][TASK]["truncated,none"] == 1.0 and len(bodies) == 3


@pytest.mark.parametrize("concurrent", ["", ",num_concurrent=2"])
def test_a_server_that_lies_about_its_window(
    concurrent: str, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refuses = "This model's maximum context length is 4096 tokens. However, you requested 70000 tokens."
    with server(window=100_000, refuses=refuses) as (url, _):
        code, said = cli(capsys, *CHAT, *SHORT, *args(url, "/chat/completions", tokenizer, concurrent))
    assert code == 3 and "max_length=4096" in said, said


def test_a_parameter_that_the_server_does_not_take_names_the_engine_that_leaves_it_out(
    tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refuses = "Unsupported parameter: 'max_tokens' is not supported with this model."
    with server(window=100_000, refuses=refuses) as (url, _):
        code, said = cli(capsys, *CHAT, *SHORT, *args(url, "/chat/completions", tokenizer))
    assert code == 3 and "--model icr-api" in said and "max_tokens" in said, said


def test_no_server(tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = cli(capsys, *CHAT, *args("http://127.0.0.1:9/v1", "/chat/completions", tokenizer))
    assert code == 3 and "no server answers" in said, said


@pytest.mark.parametrize(
    "listed",
    [
        None,
        "<html>not found</html>",
        [],
        {"data": None},
        {"data": ["M"]},
        {"data": [{"id": "M"}]},
        {"data": [{"id": "M", "max_model_len": "8k"}]},
        {"data": [{"id": "M", "max_model_len": True}]},
        {"data": [{"id": "M", "max_model_len": -1}]},
        {"data": [{"id": "A", "max_model_len": 1}, {"id": "B", "max_model_len": 2}]},
    ],
)
def test_what_no_list_of_models_says_is_unknown(listed: Any) -> None:
    with server(listed=listed) as (url, _):
        assert window.find({"base_url": f"{url}/chat/completions", "model": "M"}).size is None


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        ({"id": "M", "max_model_len": 8192}, 8192),  # vLLM, SGLang
        ({"id": "M", "context_length": 4096}, 4096),  # OpenRouter
        ({"id": "alias", "root": "M", "max_model_len": 2048}, 2048),
        ({"id": "alias", "max_model_len": 2048}, 2048),  # the only one
    ],
)
def test_what_servers_call_a_window(entry: dict[str, Any], size: int) -> None:
    with server(listed={"data": [entry]}) as (url, _):
        assert window.find({"base_url": f"{url}/completions", "model": "M"}).size == size


def test_a_default_of_the_transformers_engine_is_no_fact() -> None:
    class Silent:
        _DEFAULT_MAX_LENGTH = max_length = 2048
        _max_length = None
        _config = tokenizer = None

    assert window.find({}, Silent()).size is None
    Silent._config = type("Config", (), {"max_position_embeddings": 2048})()  # type: ignore[assignment]
    assert window.find({}, Silent()).size == 2048


def test_a_window_is_a_number() -> None:
    for wrong in ("8k", -1, "many"):
        with pytest.raises(IcrError, match="max_length="):
            window.find({"max_length": wrong})


@pytest.mark.parametrize("raw", ['{"choices": [{"text": "The ans', "<html><body>Sign in</body></html>", ""])
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_reply_that_is_no_json_ends_in_a_line(
    raw: str, at_once: int, tokenizer: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with server(window=100_000, raw=raw) as (url, _):
        given = args(url, "/chat/completions", tokenizer, f",num_concurrent={at_once}")
        code, said = cli(capsys, *CHAT, *given, *SHORT, "--output_path", str(tmp_path))
    assert code == 3 and re.search("no JSON|no list of choices", said), said
