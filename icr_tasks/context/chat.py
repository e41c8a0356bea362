"""An engine's chat template as prompts are rendered with it, and what has to be recorded of that.

Three things an engine does silently are done openly here: a template that prints today's date prints a fixed
one; system text that a template has no place for (Gemma) stands at the head of the user's turn; a template that
renders thoughts gets no answer begun for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import Any

from ..errors import IcrError
from . import thinking

DATE = "2024-07-26"  # what Llama 3.1's own template prints where it knows no clock
_PROBE = "q7Zk"
Messages = list[dict[str, str]]


class Template:
    """`render` is the engine's apply_chat_template. Callable like it.

    `date` (YYYY-MM-DD) is what the template takes for today; `system` is "user" to put system text into the
    user's turn, "system" to send it as such, None to find out what the template does with it.
    """

    def __init__(
        self,
        render: Callable[..., Any],
        *,
        date: str | None = None,
        system: str | None = None,
        name: str | None = None,
    ) -> None:
        self.lm = getattr(render, "__self__", None)
        self.name = name
        try:
            self._today = datetime.strptime(date or DATE, "%Y-%m-%d")
        except ValueError as error:
            raise IcrError(f"template_date={date}: give a date as YYYY-MM-DD, e.g. {DATE}") from error
        self._render, self._system = render, system
        self._dated = False
        if name is not None:
            choose(self.lm, name)

    def __call__(self, messages: Messages, add_generation_prompt: bool = True) -> Any:
        """The rendered conversation. Raises IcrError where the template cannot render it."""
        if messages[0]["role"] == "system" and self._folds():
            messages = fold(messages)
        return self._rendered(messages, add_generation_prompt)

    @property
    def served(self) -> bool:
        """Whether messages are sent, which a server renders by a template of its own."""
        return not isinstance(self._rendered([{"role": "user", "content": _PROBE}], True), str)

    @property
    def text(self) -> str:
        """The template itself; "" where a server has it."""
        tokenizer = getattr(self.lm, "tokenizer", None)
        return str(
            getattr(self.lm, "hf_chat_template", None) or getattr(tokenizer, "chat_template", "") or ""
        )

    @property
    def thinks(self) -> bool:
        """Whether answers begin with a thought, by the template's default and the user's arguments."""
        tokenizer = getattr(self.lm, "tokenizer", None)
        if tokenizer is None or not self.text:
            return False
        asked = [{"role": "user", "content": _PROBE}]
        given = self.arguments()

        def rendered(more: Mapping[str, Any]) -> str:
            with _clock(self._today, lambda: None):
                return str(
                    tokenizer.apply_chat_template(
                        asked,
                        tokenize=False,
                        add_generation_prompt=True,
                        chat_template=self.text,
                        **{**given, **more},
                    )
                )

        begun = str(self._rendered(asked, True)).rpartition(_PROBE)[2]
        return thinking.by_default(self.text, begun, given, rendered)

    def arguments(self) -> dict[str, Any]:
        """What the template is rendered with beside the messages."""
        found = dict(getattr(self.lm, "chat_template_args", None) or {})
        switch = getattr(self.lm, "enable_thinking", None)
        return {**found, **({} if switch is None else {"enable_thinking": switch})}

    def about(self) -> dict[str, Any]:
        """What to record beside the template's hash; empty for a template that needs nothing of it."""
        said: dict[str, Any] = {"args": self.arguments(), "name": self.name}
        said["date"] = self._today.strftime("%Y-%m-%d") if self._dated else None
        said["system"] = "user" if self._system == "user" else None
        return {name: value for name, value in said.items() if value}

    def sha(self) -> str | None:
        """16 hex digits of the template."""
        tokenizer = getattr(self.lm, "tokenizer", None)
        text = str(getattr(tokenizer, "chat_template", "") or "")
        return hashlib.sha256(text.encode()).hexdigest()[:16] if text else None

    def _folds(self) -> bool:
        if self._system is None:
            self._system = "system" if self._keeps_system() else "user"
        return self._system == "user"

    def _keeps_system(self) -> bool:
        """Whether system text reaches the prompt. A server's template cannot be seen: it gets what it is sent."""
        asked = [{"role": "system", "content": f"{_PROBE}s"}, {"role": "user", "content": f"{_PROBE}u"}]
        try:
            shown = self._rendered(asked, True)
        except IcrError:
            return False
        return not isinstance(shown, str) or f"{_PROBE}s" in shown

    def _rendered(self, messages: Messages, add_generation_prompt: bool) -> Any:
        from jinja2.exceptions import TemplateError

        try:
            with _clock(self._today, self._saw_date):
                return self._render(messages, add_generation_prompt=add_generation_prompt)
        except (TemplateError, ValueError) as error:  # an engine of somebody else's raises what it likes
            if isinstance(error, ValueError) and "chat_template" in str(error):
                raise IcrError(
                    "this model has no chat template: leave --apply_chat_template out, or name a tokenizer that "
                    "has one (tokenizer= in --model_args)"
                ) from error
            roles = " ".join(m["role"] for m in messages)
            raise IcrError(
                f"the model's chat template cannot render the turns {roles!r} ({error}); leave "
                "--apply_chat_template out, or use another prompt"
            ) from error

    def _saw_date(self) -> None:
        self._dated = True


def fold(messages: Messages) -> Messages:
    """System text at the head of the first user turn."""
    system, first, *rest = messages
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def choose(lm: Any, name: str) -> None:
    """Make the engine render with the template of that name, which lm-eval only records. Raises IcrError where
    it cannot."""
    tokenizer = getattr(lm, "tokenizer", None)
    known = getattr(lm, "_icr_templates", None) or getattr(tokenizer, "chat_template", None)
    if not isinstance(known, Mapping):
        owner = "the server renders with a template of its own" if tokenizer is None else "the model has one"
        raise IcrError(
            f"--apply_chat_template {name}: {owner}, without a name; give --apply_chat_template alone"
        )
    if name not in known:
        raise IcrError(f"--apply_chat_template {name}: the model's templates are {', '.join(sorted(known))}")
    lm._icr_templates = dict(known)
    tokenizer.chat_template = known[name]  # type: ignore[union-attr]
    if hasattr(lm, "hf_chat_template"):
        lm.hf_chat_template = known[name]


@contextmanager
def _clock(today: datetime, seen: Callable[[], None]) -> Iterator[None]:
    """Templates of transformers print `today`; `seen` is called where one asks for the date."""

    class Fixed(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            seen()
            return today

    module: Any = import_module("transformers.utils.chat_template_utils")
    original = module.datetime
    module.datetime = Fixed
    try:
        yield
    finally:
        module.datetime = original
