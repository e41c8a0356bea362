"""Prompt forms and options that an engine cannot run: refused before a model is loaded, or before a prompt is built."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_served import FakeServed
from flagkit import cli
from test_flags_templates import SHAPES, Engine

from icr_tasks.errors import IcrError
from icr_tasks.harness import flags
from icr_tasks.harness.asked import Asked
from icr_tasks.harness.run import manager

HELMET, SYNTH = "icr_helmet_rag_nq_4k", "icr_synth_rag_512"
CHAT = ("local-chat-completions", "openai-chat-completions", "anthropic-chat-completions", "icr-api")
TEXT = ("local-completions", "openai-completions")
ALL = {
    "completion style": (
        CHAT,
        HELMET,
        {"prompt": "official"},
        "'official' is completion style",
        '"prompt":"',
    ),
    "compressed": ((*CHAT, *TEXT), SYNTH, {"setting": "kv:topk@0.05"}, "kv:topk@0.05", "icr-hf or icr-vllm"),
    **{
        option: (CHAT, SYNTH, {option: value}, f"{option} has no effect", "--model local-completions")
        for option, value in (
            ("add_bos_token", True),
            ("prefix_token_id", 1),
            ("custom_prefix_token_id", 1),
            ("truncation_side", "left"),
        )
    },
}


def before(engine: str, task: str, metadata: dict[str, Any], template: bool) -> None:
    args = {"model": "M", "base_url": "http://127.0.0.1:9/v1"}
    asked = Asked(engine=engine, template=template, model_args=args)
    flags.before_loading([task], {**args, **metadata}, asked, {})


@pytest.mark.parametrize(("form", "engine"), [(form, engine) for form in ALL for engine in ALL[form][0]])
def test_refused_by_name_alone_with_what_can(form: str, engine: str) -> None:
    _, task, metadata, says, instead = ALL[form]
    with pytest.raises(IcrError) as caught:
        before(engine, task, metadata, engine in CHAT)
    assert says in str(caught.value) and instead in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize(("engine", "variable"), [("hf", ""), ("hf", "topk@0.05"), ("vllm", "")])
@pytest.mark.parametrize("setting", ["kv:topk@0.05", "rag@256+kv:snapkv@0.5"])
def test_an_engine_that_reads_its_whole_cache_is_refused_a_compressed_setting(
    engine: str, variable: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICR_KV", variable)
    given = {} if variable else {"setting": setting}  # a leftover ICR_KV makes a full-context run one
    with pytest.raises(IcrError, match="reads whole: use --model icr-hf or icr-vllm") as caught:
        before(engine, SYNTH, given, False)
    assert (", or unset ICR_KV" if variable else ", or ICR_KV=") in str(caught.value)


def test_a_cache_that_an_engine_compresses_itself_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICR_KV", "topk@0.05")
    before("vllm", SYNTH, {"setting": "kv:topk@0.05"}, False)
    monkeypatch.delenv("ICR_KV")
    before("vllm", SYNTH, {"kv_cache_dtype": "fp8"}, False)
    for engine in ("icr-hf", "an-engine-of-a-plugin"):
        before(engine, SYNTH, {"setting": "kv:topk@0.05"}, False)
    with pytest.raises(IcrError, match="load it with kv=task"):
        before("icr-vllm", SYNTH, {"setting": "kv:topk@0.05"}, False)


@pytest.mark.parametrize("engine", ["local-completions", "icr-api", "hf", "icr-vllm"])
def test_engines_that_send_text_complete_it(engine: str) -> None:
    before(engine, HELMET, {"prompt": "official", "truncation_side": "left"}, False)


@pytest.mark.parametrize("form", ["completion style", "truncation_side", "compressed"])
def test_the_command_says_it_before_a_server_is_asked(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, task, metadata, says, instead = ALL[form]
    with FakeServed() as server:
        args = f"model=M,base_url={server.url}/chat/completions"
        code, said = cli(
            capsys,
            *("--tasks", task, "--model", "local-chat-completions", "--apply_chat_template"),
            *("--model_args", args, "--metadata", json.dumps({"tokenizer": "none", **metadata})),
        )
        assert (code, server.calls) == (2, 0) and says in said and instead in said, said


def build(metadata: dict[str, Any], lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a context is read before the refusal."""
    task = manager({"tokenizer": "none", **metadata}).load([SYNTH])["tasks"][SYNTH]
    monkeypatch.setattr(type(task), "request", lambda *a, **k: pytest.fail("a prompt was built"))
    task.build_all_requests(limit=2, apply_chat_template=True, chat_template=lm.apply_chat_template)


def test_a_begun_answer_on_a_thinking_template_is_refused_before_building(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(IcrError, match="lets it think first.*enable_thinking=False.*gold@only"):
        build({"setting": "gold"}, Engine(SHAPES["qwen3-thinking"]), monkeypatch)


@pytest.mark.parametrize("dialect", ["openai", "vllm", "sglang"])
def test_a_begun_answer_needs_a_server_that_continues_it(
    dialect: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServed(dialect=dialect) as server:
        code, said = cli(
            capsys,
            *("--model", "icr-api", "--model_args", f"model=M,base_url={server.url}", "--limit", "1"),
            *("--apply_chat_template", "--metadata", '{"setting":"gold","tokenizer":"none"}'),
        )
        if dialect == "openai":
            assert (code, server.calls) == (2, 0), said
            assert "vLLM's and SGLang's servers" in said and "gold@only" in said
        else:
            assert (code, said) == (0, "")
            assert (
                server.bodies[0]["continue_final_message"] and not server.bodies[0]["add_generation_prompt"]
            )
