"""Prompt forms and options that an engine cannot run, refused with the engine or prompt that can.

The same rules hold before a model is loaded (by its name, `engine`) and before prompts are built (`lm`, the
engine itself): what a chat server is sent are messages, which it renders by a template of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..benchmarks.base import Prompt
from ..context import window
from ..context.chat import Template
from ..engines import early
from ..errors import IcrError
from ..listing import CONTINUE
from ..settings import Setting

_CHAT = ("chat-completions", "-chat", "litellm")  # how the names of lm-eval's chat engines end
_TEXT = ("local-completions", "openai-completions", "anthropic-completions", "sglang-generate")
_SERVED = "icr-api"
_STOCK = {"lm_eval.models.huggingface": "hf", "lm_eval.models.vllm_causallms": "vllm"}
_TOKEN_LEVEL = ("add_bos_token", "prefix_token_id", "custom_prefix_token_id", "truncation_side")
_THINKING = ("chat_template_args", "enable_thinking")


@dataclass(frozen=True)
class Form:
    """What one task sends: its prompt, its setting, and what the user said about the engine."""

    prompt: Prompt
    setting: Setting
    metadata: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Prompt, ...] = ()  # the task's other prompts, for advice

    @property
    def begun(self) -> bool:
        """Whether the assistant's turn is begun for the model."""
        return self.prompt.chat and (bool(self.prompt.prefill) or str(self.setting.context) == "gold")

    def advice(self) -> str:
        """The prompts that a chat server can run."""
        known = [p.name for p in self.others if p.chat and not p.prefill]
        return f'--metadata \'{{"prompt":"{known[0]}"}}\' ({", ".join(known)})' if known else "another prompt"


def serves(engine: str, lm: Any = None) -> str | None:
    """ "chat" or "text" for a model behind an address, None for one in this process (or one of no known kind)."""
    if lm is not None:
        kind = type(lm)
        if not hasattr(lm, "_create_payload"):
            return None
        names = {base.__name__ for base in kind.__mro__}
        return "chat" if names & {"LocalChatCompletion", "AnthropicChat"} else "text"
    if engine.endswith(_CHAT):
        return "chat"
    return "text" if engine in _TEXT else None


def check(form: Form, engine: str, lm: Any, template: Template | bool) -> dict[str, Any]:
    """Parameters that requests need beside lm-eval's, so that the engine can run this form.

    `template`: the template, or whether one was asked for (before the model is loaded). Raises IcrError for what
    it cannot run.
    """
    kind = serves(engine, lm)
    name = engine or (type(lm).__name__ if lm is not None else "this engine")
    ours = engine == _SERVED and bool(template)  # it sends messages where a template is asked for, else text
    messages = kind == "chat" or ours or isinstance(template, Template) and template.served
    if kind == "chat" and not template:
        raise IcrError(f"{name} sends messages: add --apply_chat_template")
    if kind == "text" and isinstance(template, Template) and template.served:
        raise IcrError(
            f"{name} sends text, and has no tokenizer here that could render a chat: name one "
            "(tokenizer=MODEL,tokenizer_backend=huggingface in --model_args), use --model local-chat-completions, "
            "or leave --apply_chat_template out"
        )
    if messages and not form.prompt.chat:
        raise IcrError(
            f"prompt {form.prompt.name!r} is completion style, which a chat server cannot run: use --model "
            f"local-completions, or {form.advice()}"
        )
    if kind is not None or engine == _SERVED:
        early.no_compression(form.setting, "inside the engine, which a server cannot be asked for")
    elif lm is not None:
        early.stock(_STOCK.get(type(lm).__module__, ""), form.setting)
    if messages:
        _tokens(form, name)
        if not isinstance(template, Template):
            return {}  # which server it is stands in the engine, once there is one
        return {**_begun(form, lm), **_thinking(form, lm)}
    if form.begun and isinstance(template, Template) and template.thinks:
        raise IcrError(
            f"{_what(form)} begins the answer, but this model's template lets it think first: switch thinking off "
            f"(enable_thinking=False in --model_args), or use {_instead(form)}"
        )
    return {}


def _what(form: Form) -> str:
    return f"prompt {form.prompt.name!r}" if form.prompt.prefill else f"setting {form.setting.context}"


def _instead(form: Form) -> str:
    return form.advice() if form.prompt.prefill else "setting gold@only, which says the same passages once"


def _begun(form: Form, lm: Any) -> dict[str, Any]:
    """What makes a server continue the last message; refused where nobody knows that it can."""
    if not form.begun:
        return {}
    if window.ask(form.metadata, lm).continues:
        return dict(CONTINUE)
    raise IcrError(
        f"{_what(form)} begins the assistant's answer, and only vLLM's and SGLang's servers are known to continue "
        f"it (this one does not say that it is one): use such a server, --model local-completions with the model's "
        f"tokenizer, or {_instead(form)}"
    )


def _thinking(form: Form, lm: Any) -> dict[str, Any]:
    """Arguments of the server's template, which lm-eval's API engines take and forget."""
    given = dict(_mapping(form.metadata.get("chat_template_args")))
    if (thinking := form.metadata.get("enable_thinking")) is not None:
        given["enable_thinking"] = thinking
    if not given:
        return {}
    if window.ask(form.metadata, lm).continues:
        return {"chat_template_kwargs": given}
    raise IcrError(
        f"{' and '.join(n for n in _THINKING if form.metadata.get(n) is not None)}: the server renders the "
        "template, and only vLLM's and SGLang's are known to take arguments for it; leave it out, or give the "
        "server's own parameter by --gen_kwargs (reasoning_effort=low)"
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if value is None or isinstance(value, Mapping):
        return value or {}
    raise IcrError(
        f'chat_template_args={value}: give an object, chat_template_args={{"enable_thinking":false}}'
    )


def _tokens(form: Form, name: str) -> None:
    for option in _TOKEN_LEVEL:
        if form.metadata.get(option) is not None:
            raise IcrError(
                f"{name} sends messages, not tokens, so {option} has no effect: leave it out, or use --model "
                "local-completions or an engine in this process"
            )
