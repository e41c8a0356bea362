"""What lm_eval was asked for beside our own options: its model, template, caches and limits.

lm_eval hands a task no more than it thinks a task needs: neither the model, where no chat template is applied,
nor the name of a template, nor whether answers are cached. They stand in its calling frames (in this process),
or in the configuration of its command line, before a model is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..engines import session


@dataclass(frozen=True)
class Asked:
    """lm_eval's options that concern prompts and answers. `lm` is None before the model is loaded."""

    engine: str = ""  # --model
    lm: Any = None
    template: bool | str = False  # --apply_chat_template, with the name where one was given
    use_cache: str | None = None
    num_fewshot: int | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def template_name(self) -> str | None:
        """The template chosen by name."""
        return self.template if isinstance(self.template, str) else None


def running(lm: Any = None) -> Asked:
    """What the lm_eval call asked for that this one runs in; nothing but `lm` where there is none."""
    evaluate = _frame("evaluate")
    simple = _frame("simple_evaluate")
    lm = lm if lm is not None else session.engine() or evaluate.get("lm", simple.get("lm"))
    model = simple.get("model")
    args, gen = simple.get("model_args"), simple.get("gen_kwargs")
    return Asked(
        engine=model if isinstance(model, str) else "",
        lm=getattr(lm, "lm", lm),  # within lm_eval's response cache
        template=evaluate.get("apply_chat_template") or simple.get("apply_chat_template") or False,
        use_cache=simple.get("use_cache"),
        num_fewshot=simple.get("num_fewshot"),
        model_args=args if isinstance(args, Mapping) else {},
        gen_kwargs=gen if isinstance(gen, Mapping) else {},
    )


def _frame(function: str) -> Mapping[str, Any]:
    """Variables of the nearest call of a function of lm_eval.evaluator; empty outside one."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == function and frame.f_globals.get("__name__") == "lm_eval.evaluator":
            return frame.f_locals
        frame = frame.f_back  # type: ignore[assignment]
    return {}
