"""Chat templates of the families that exist, in shapes written for these tests: dates, system roles, thinking."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import tiny

from icr_tasks.context.chat import DATE, Template
from icr_tasks.errors import IcrError

_TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
_GO = "{% if add_generation_prompt %}<assistant>{% endif %}"
SHAPES = {
    # thinks unless it is told not to; then the template closes an empty thought
    "qwen3": _TURNS + "{% if add_generation_prompt %}<assistant>{% if enable_thinking is defined and "
    "enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    "qwen3-thinking": _TURNS + "{% if add_generation_prompt %}<assistant><think>\n{% endif %}",
    "qwen3-instruct": _TURNS + _GO,
    # prints the day, unless it is handed one
    "llama3": "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<system>Today: {{ date_string }}\n{% if messages[0].role == 'system' %}{{ messages[0].content }}"
    "{% set messages = messages[1:] %}{% endif %}</system>" + _TURNS + _GO,
    # no system role
    "gemma": "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + _TURNS
    + _GO,
    # forgets it
    "mistral-v1": "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    + _GO,
    "mistral": "{% set today = strftime_now('%Y-%m-%d') %}<sys>{{ today }} "
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}"
    "</sys>" + _TURNS + _GO,
    "glm": "[gMASK]" + _TURNS + "{% if add_generation_prompt %}<assistant>{{ '<think></think>' if "
    "(enable_thinking is defined and not enable_thinking) else '' }}{% endif %}",
    "gpt-oss": "<system>Current date: {{ strftime_now('%Y-%m-%d') }} Reasoning: {{ reasoning_effort | "
    "default('medium') }}</system>{% for m in messages %}<{{ 'developer' if m.role == 'system' else m.role }}>"
    "{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    "{# <|channel|>analysis #}",
    # thinks only where it is told to
    "deepseek-v3.1": _TURNS
    + "{% if add_generation_prompt %}<assistant>{{ '<think>' if (thinking is defined and "
    "thinking) else '</think>' }}{% endif %}",
    "deepseek-r1": "{% for m in messages %}{% set c = m.content %}{% if '</think>' in c %}"
    "{% set c = c.split('</think>')[-1] %}{% endif %}<{{ m.role }}>{{ c }}{% endfor %}" + _GO,
    "granite": "<system>{{ strftime_now('%B %d, %Y') }}{% if thinking %} Think first.{% endif %} "
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}"
    "</system>" + _TURNS + _GO,
    "phi": _TURNS + _GO,
    "phi-reasoning": "<system>Structure: <think> thoughts </think> answer.{% if messages[0].role == 'system' %} "
    "{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}</system>" + _TURNS + _GO,
}
DATED = ("llama3", "mistral", "gpt-oss", "granite")
FOLDED = ("gemma", "mistral-v1")
THINKS = {"qwen3", "qwen3-thinking", "glm", "gpt-oss", "deepseek-r1", "phi-reasoning"}
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]


class Engine:
    """What a task asks of a loaded model."""

    def __init__(self, template: Any, **arguments: Any) -> None:
        self.tokenizer = tiny.tokenizer()
        self.tokenizer.chat_template = template
        self.chat_template_args = arguments

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self.chat_template_args,
        )


def of(shape: str, **arguments: Any) -> Template:
    return Template(Engine(SHAPES[shape], **arguments).apply_chat_template)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_shows_system_text_and_question_once(shape: str) -> None:
    template = of(shape)
    text = template(ASKED)
    assert text.count("Be brief.") == text.count("Who?") == 1
    assert (template.about().get("system") == "user") is (shape in FOLDED)
    if shape in FOLDED:
        assert "Be brief.\n\nWho?" in text


@pytest.mark.parametrize("shape", SHAPES)
def test_a_date_is_fixed_and_recorded(shape: str) -> None:
    template = of(shape)
    text = template(ASKED)
    assert (template.about().get("date") == DATE) is (shape in DATED)
    assert datetime.now().strftime("%Y") not in text
    if shape in DATED:
        assert "2024" in text
        other = Template(Engine(SHAPES[shape]).apply_chat_template, date="2031-01-02")
        assert "2031" in other(ASKED) and other.about()["date"] == "2031-01-02"


def test_the_clock_runs_again_afterwards() -> None:
    of("llama3")(ASKED)
    assert datetime.now().strftime("%d %b %Y") in Engine(SHAPES["llama3"]).apply_chat_template(ASKED)


def test_a_date_is_a_date() -> None:
    with pytest.raises(IcrError, match="YYYY-MM-DD"):
        Template(Engine(SHAPES["llama3"]).apply_chat_template, date="today")


@pytest.mark.parametrize("shape", SHAPES)
def test_whether_a_template_lets_the_model_think(shape: str) -> None:
    assert of(shape).thinks is (shape in THINKS)


@pytest.mark.parametrize("shape", ["qwen3", "glm"])
def test_thinking_switched_off_is_seen_and_recorded(shape: str) -> None:
    template = of(shape, enable_thinking=False)
    assert not template.thinks
    assert template.about()["args"] == {"enable_thinking": False}


@pytest.mark.parametrize(("shape", "name"), [("deepseek-v3.1", "thinking"), ("granite", "thinking")])
def test_thinking_switched_on_is_seen(shape: str, name: str) -> None:
    assert of(shape, **{name: True}).thinks


def test_system_text_may_be_put_into_the_user_s_turn_for_a_server() -> None:
    class Served:
        def apply_chat_template(self, messages: Any, add_generation_prompt: bool = True) -> tuple[Any]:
            return (messages,)

    assert Template(Served().apply_chat_template)(ASKED) == (ASKED,)
    folded = Template(Served().apply_chat_template, system="user")(ASKED)
    assert folded == ([{"role": "user", "content": "Be brief.\n\nWho?"}],)


def test_a_named_template_is_applied_or_refused() -> None:
    named = {"default": SHAPES["phi"], "plain": "{{ messages[-1].content }}"}
    engine = Engine(dict(named))
    template = Template(engine.apply_chat_template, name="plain")
    assert template(ASKED) == "Be brief.\n\nWho?" and template.about()["name"] == "plain"
    again = Template(engine.apply_chat_template, name="default")  # a second run in the process
    assert again(ASKED).startswith("<system>Be brief.") and again.sha() != template.name
    with pytest.raises(IcrError, match="default, plain"):
        Template(engine.apply_chat_template, name="tool_use")
    with pytest.raises(IcrError, match="without a name"):
        Template(Engine(SHAPES["phi"]).apply_chat_template, name="plain")


def test_no_template_and_a_template_that_cannot() -> None:
    with pytest.raises(IcrError, match="no chat template"):
        Template(Engine(None).apply_chat_template)(ASKED)
    strict = "{% if messages[-1].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}"
    with pytest.raises(IcrError, match="roles must alternate"):
        Template(Engine(strict).apply_chat_template)([{"role": "assistant", "content": "x"}])
