"""How one task asks the engine of this run: template, window, parameters of its requests, and what to record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..benchmarks import base
from ..context import window
from ..context.chat import Template
from ..context.window import Window
from ..engines import thoughts
from ..errors import IcrError
from ..schema import answering, fingerprint
from . import api_models, flags, forms, pieces
from .asked import Asked, running
from .grading import GRADER_KEYS
from .options import OURS

if TYPE_CHECKING:
    from .task import ICRTask


@dataclass
class Asking:
    """Made once for a run of a task. `extra` are parameters of every request beside lm-eval's; `salt` tells
    answers of other models and settings apart in lm_eval's response cache."""

    task: str
    window: Window
    template: Template | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    salt: str = ""
    cuts_asked: bool = False
    n_cut: int = 0
    n: int = 0  # prompts of the run
    command: bool = False  # whether lm_eval loaded the engine by its name, and ends with an exit code

    @classmethod
    def idle(cls, task: ICRTask) -> Asking:
        """Of a replay, which asks nobody."""
        return cls(str(task.config.task), Window(None, "replayed"))

    @classmethod
    def of(cls, task: ICRTask, render: Callable[..., Any] | None, counter: Any) -> Asking:
        """Raises IcrError, before anything is built, for what the engine cannot run."""
        metadata, options, counted = task.config.metadata, task.options, counter is not None
        asked = running(getattr(render, "__self__", None))
        flags.answers_cache(asked.use_cache, options.setting, asked.engine)
        template = None
        if render is not None:
            template = Template(
                render, date=options.template_date, system=options.system_role, name=asked.template_name
            )
            _thinking(template.lm, metadata)
        sheet = task.sheet
        others = tuple(base.table(sheet["benchmark"], sheet["dataset"]).values())
        form = forms.Form(task.prompt_format, options.setting, metadata, others)
        extra = forms.check(form, asked.engine, asked.lm, template or False)
        idle = Window(None, "nothing is counted")
        found = window.find(metadata, asked.lm) if counted or forms.serves("", asked.lm) else idle
        api_models.prepare(asked.lm, found)
        pieces.prepare(asked.lm)
        thoughts.keep(asked.lm)
        found = found if counted else idle
        return cls(
            str(task.config.task),
            found,
            template,
            extra,
            _salt(asked, task),
            found.asked or bool(options.truncation or options.overflow),
            command=bool(asked.engine),
        )

    def built(self, truncated: bool) -> None:
        """One of the run's `n` prompts is built. Raises IcrError once more than half are cut and nobody asked for it."""
        self.n_cut += truncated
        if truncated and 2 * self.n_cut > self.n and self.n and not self.cuts_asked:
            raise IcrError(
                f"{self.task}: more than half of the {self.n} prompts do not fit into {self.window.size} tokens (says "
                f"{self.window.source}) and would be cut: give max_model_len= (served: max_length=) in "
                "--model_args if the model takes more, a task of a shorter length, or --metadata "
                '\'{"overflow":"truncate"}\' to score cut contexts'
            )

    def about(self) -> dict[str, Any]:
        """For the data sheet."""
        told = {} if self.template is None else self.template.about()
        if kwargs := self.extra.get("chat_template_kwargs"):
            told["args"] = dict(kwargs)
        return {
            "max_model_len": self.window.size,
            "window": self.window.source,
            "chat_template_sha": self.template.sha() if self.template else None,
            **({"template": told} if told else {}),
        }


def overflow(task: ICRTask) -> str:
    """What happens to a prompt above the window. A benchmark that is never cut says so in its sheet."""
    options, never = task.options, task.sheet.get("overflow") == "skip"
    if never and (options.overflow == "truncate" or options.truncation):
        given = "overflow=truncate" if options.overflow else f"truncation={options.truncation}"
        raise IcrError(
            f"{task.config.task} is never cut: what exceeds the window is not sent and counted; leave {given} out"
        )
    return options.overflow or ("skip" if never else "truncate")


def _thinking(lm: Any, metadata: Mapping[str, Any]) -> None:
    """lm-eval's vLLM engine takes `enable_thinking` out of chat_template_args and drops it."""
    given = metadata.get("chat_template_args")
    if isinstance(given, Mapping) and "enable_thinking" in given and hasattr(lm, "enable_thinking"):
        lm.enable_thinking = given["enable_thinking"]


def _salt(asked: Asked, task: ICRTask) -> str:
    skip = {*OURS, *GRADER_KEYS, "icr", "version", "config_source"}
    args = {**task.config.metadata, **asked.model_args}
    model = {name: value for name, value in answering(args).items() if name not in skip}
    told = {"engine": asked.engine, "model": model, "setting": str(task.options.setting)}
    return fingerprint(told)
