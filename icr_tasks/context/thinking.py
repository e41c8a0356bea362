"""Thinking switched on or off, in the words of each model family.

    --metadata '{"thinking":"off"}'         off, on, low, medium, high

A model in this process is asked through its chat template: the switch is the variable that the template
reads, and it has to change what is rendered. A served model's template cannot be seen: its name says which
switch the family has, and its server must take it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import IcrError, unknown
from ..metrics.visible import opens_thought

WORDS = ("off", "on", "low", "medium", "high")
_EFFORTS = ("low", "medium", "high")


@dataclass(frozen=True)
class Switch:
    """What a word means for one model: arguments of its chat template, fields of the request, a line of
    system text."""

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None


@dataclass(frozen=True)
class Family:
    """How a family switches thinking: a `variable` of its template, `system` lines, or the field
    `reasoning_effort`. `always`: its thoughts cannot be switched off; `never`: it has none."""

    name: str
    models: str  # a pattern on the model's name, in lower case
    variable: str | None = None
    system: Mapping[str, str] = field(default_factory=dict)
    effort: bool = False
    always: bool = False
    never: bool = False


# In this order; the first whose pattern is found counts.
FAMILIES = (
    # before those whose names theirs may hold: DeepSeek-R1-0528-Qwen3-8B
    Family("DeepSeek-R1", r"deepseek.*r1", always=True),
    Family("QwQ", r"qwq", always=True),
    Family("Qwen3 Instruct 2507", r"qwen3.*instruct", never=True),
    Family("Qwen3 Thinking 2507", r"qwen3.*thinking", always=True),
    Family("Qwen3", r"qwen3|qwen-?3", "enable_thinking"),
    Family("GLM", r"glm-?(?:4\.[5-9]|[5-9])", "enable_thinking"),
    Family("DeepSeek V3.1 and later", r"deepseek.*v(?:3\.[1-9]|[4-9])", "thinking"),
    Family("Granite", r"granite-(?:3\.[2-9]|[4-9])", "thinking"),
    Family("Kimi K2 Thinking", r"kimi-k2-thinking", always=True),
    Family("Kimi K2.5 and later", r"kimi-k(?:2\.[5-9]|[3-9])", "thinking"),
    Family("gpt-oss", r"gpt-oss", effort=True, always=True),
    Family("GPT-5, o-series", r"(?:^|/)(?:gpt-[5-9]|o[1-9](?:-|$))", effort=True, always=True),
    Family("Seed-OSS", r"seed-oss", "thinking_budget"),
    Family(
        "Llama-Nemotron",
        r"llama-.*nemotron",
        system={"off": "detailed thinking off", "on": "detailed thinking on"},
    ),
    Family("Nemotron Nano 2", r"nemotron-nano.*v2", system={"off": "/no_think", "on": "/think"}),
    Family("Nemotron 3", r"nemotron-3", "enable_thinking"),
    Family("SmolLM3", r"smollm3", "enable_thinking"),
    Family("Hunyuan", r"hunyuan", "enable_thinking"),
    Family("Gemma 4", r"gemma-4", "enable_thinking"),
    Family("Phi-4 reasoning", r"phi-4.*reasoning", always=True),
    Family("Magistral", r"magistral", always=True),
)
_VALUES: dict[str, dict[str, Any]] = {
    "enable_thinking": {"off": False, "on": True},
    "thinking": {"off": False, "on": True},
    "thinking_budget": {"off": 0, "on": -1},
}
_THOUGHTS = re.compile(r"thinking|</?think>|reasoning_content|<\|channel\|>")
_CLOSED = re.compile(r"</think>|\[/THINK\]")
_OFF = (False, 0, None, "false", "False", "0", "off", "no")
_LINES = {
    "/no_think": {"off": "/no_think", "on": "/think"},
    "detailed thinking": {"off": "detailed thinking off", "on": "detailed thinking on"},
}


def word(given: Any) -> str | None:
    """The option as one of WORDS, None for none; a flag (YAML reads `off` as one) is off or on."""
    if given is None:
        return None
    text = {True: "on", False: "off"}[given] if isinstance(given, bool) else str(given).lower()
    if text not in WORDS:
        raise unknown("thinking", text, WORDS)
    return text


def by_name(model: str, thinking: str) -> Switch:
    """The switch of a served model. Raises IcrError for a family that is not known, or cannot do that."""
    name = model.lower()
    family = next((f for f in FAMILIES if re.search(f.models, name)), None)
    if family is None:
        raise IcrError(
            f"thinking={thinking}: how {model!r} switches thoughts is not known; give its server's own "
            'parameter by --gen_kwargs: {"chat_template_kwargs":{"enable_thinking":false}}, or reasoning_effort=low'
        )
    if family.never:
        return _only("off", family, thinking, "never thinks")
    if family.effort and (thinking in _EFFORTS or thinking == "on"):
        return Switch(body={} if thinking == "on" else {"reasoning_effort": thinking})
    if family.always:
        least = "; thinking=low is the least" if family.effort else ""
        return _only("on", family, thinking, f"always thinks{least}")
    if thinking in _EFFORTS:
        raise IcrError(f"thinking={thinking}: {family.name} knows on and off")
    if family.variable is not None:
        return Switch(kwargs={family.variable: _VALUES[family.variable][thinking]})
    return Switch(system=family.system[thinking])


def _only(allowed: str, family: Family, thinking: str, why: str) -> Switch:
    if thinking != allowed:
        raise IcrError(f"thinking={thinking}: {family.name} {why}")
    return Switch()


def by_default(
    text: str, begun: str, given: Mapping[str, Any], rendered: Callable[[Mapping[str, Any]], str]
) -> bool:
    """Whether answers begin with a thought: the template `text` knows thoughts, and none is closed or switched off
    by default (Granite, DeepSeek-V3.1) or by the arguments `given`. `begun` is how it begins an answer;
    `rendered` gives a prompt under more arguments."""
    if not _THOUGHTS.search(text):
        return False
    if opens_thought(begun) or _CLOSED.search(begun):
        return opens_thought(begun)
    for variable, values in _VALUES.items():
        if variable in given:
            return given[variable] not in _OFF
        if _reads(text, variable):
            return rendered({variable: values["off"]}) != rendered({})
    return True


def _reads(text: str, variable: str) -> bool:
    return re.search(rf"(?<![\w.]){variable}\b", text) is not None


def by_template(text: str, thinking: str, render: Callable[[Switch], str]) -> Switch:
    """The switch of a model whose chat template is at hand. `render` gives a prompt under a switch.

    Raises IcrError where the template has none, or renders the same whatever it says.
    """
    other = "on" if thinking == "off" else "off"
    for variable, values in _VALUES.items():
        if thinking in values and _reads(text, variable):
            made, opposite = Switch({variable: values[thinking]}), Switch({variable: values[other]})
            if render(made) != render(opposite):
                return made
    if "reasoning_effort" in text and thinking != "off":
        return Switch({} if thinking == "on" else {"reasoning_effort": thinking})
    for mark, lines in _LINES.items():
        if mark in text and thinking in lines:
            return Switch(system=lines[thinking])
    least = "; thinking=low is the least" if "reasoning_effort" in text else ""
    raise IcrError(
        f"thinking={thinking}: this model's chat template has no switch for that{least}; leave it out, or "
        "take a model or template that has one"
    )
