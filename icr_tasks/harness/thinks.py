"""The option `thinking` of a run, given to the engine before its prompts are rendered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..context.thinking import Switch, by_name, by_template, word
from ..errors import IcrError

if TYPE_CHECKING:
    from .task import ICRTask

_OWN = "_icr_own_arguments"
_ASKED = [{"role": "user", "content": "?"}]


def system(task: ICRTask, render: Callable[..., Any] | None, given: str | None) -> str | None:
    """The system text of this task's prompts, after its thoughts are switched."""
    line = prepare(task, render)
    return f"{given}\n{line}" if given and line else line or given


def prepare(task: ICRTask, render: Callable[..., Any] | None) -> str | None:
    """Switch the thoughts of this task's prompts; returns a line of system text where that is the switch.

    An engine renders with the arguments it was loaded with and those of the task that builds its prompts now;
    another task of the same process starts from the engine's own again. Raises IcrError where it cannot be
    done.
    """
    metadata, lm = task.config.metadata, getattr(render, "__self__", None)
    thinking = word(metadata.get("thinking"))
    own = getattr(lm, _OWN, None)
    if own is not None:
        _give(lm, own)
    if thinking is None:
        return None
    task.sheet["thinking"] = thinking
    if render is None:
        raise IcrError(f"thinking={thinking} is a matter of the chat template: add --apply_chat_template")
    if not isinstance(render(_ASKED, add_generation_prompt=True), str):
        switch = by_name(str(metadata.get("model") or metadata.get("pretrained") or ""), thinking)
        more = {"chat_template_kwargs": dict(switch.kwargs)} if switch.kwargs else {}
        if made := {**more, **switch.body}:
            task.set_config("generation_kwargs", made, update=True)
        return switch.system
    own = _own(lm) if own is None else own
    setattr(lm, _OWN, own)
    tokenizer = getattr(lm, "tokenizer", None)
    text = str(getattr(lm, "hf_chat_template", None) or getattr(tokenizer, "chat_template", None) or "")

    def shown(switch: Switch) -> str:
        _give(lm, {**own, **switch.kwargs})
        return str(render(_ASKED, add_generation_prompt=True))

    try:
        switch = by_template(text, thinking, shown)
    except IcrError:
        _give(lm, own)
        raise
    _give(lm, {**own, **switch.kwargs})
    return switch.system


def _own(lm: Any) -> dict[str, Any]:
    """The template arguments that the engine was loaded with."""
    found = dict(getattr(lm, "chat_template_args", None) or {})
    given = getattr(lm, "enable_thinking", None)
    return {**found, **({} if given is None else {"enable_thinking": given})}


def _give(lm: Any, arguments: dict[str, Any]) -> None:
    """Let an engine of lm-eval render with these; vLLM's passes `enable_thinking` beside the others."""
    given = dict(arguments)
    if any(kind.__module__.endswith("vllm_causallms") for kind in type(lm).__mro__):
        lm.enable_thinking = given.pop("enable_thinking", None)
    lm.chat_template_args = given
