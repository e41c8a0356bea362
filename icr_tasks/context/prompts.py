"""Prompt formats. Training and evaluation use these same objects.

>>> get("helmet_rag", "ao").messages(context="[DOC 0]\\n...", question="Who?")[0]["role"]
'system'

A benchmark's prompts live in `icr_tasks/tasks/<benchmark>/prompts.py` as `PROMPTS`; a new one is one entry there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..data.item import Unit
from ..errors import IcrError, unknown

_HOMES = {
    "helmet_rag": "icr_tasks.tasks.helmet_rag.prompts",
    "synth": "icr_tasks.tasks.synth.prompts",
    "infbench": "icr_tasks.tasks.infbench.prompts",
    "longbench_v2": "icr_tasks.tasks.longbench_v2.prompts",
    "loong_fin": "icr_tasks.tasks.loong_fin.prompts",
}


@dataclass(frozen=True)
class Prompt:
    """One instruction format.

    `user` has `{context}`, `{question}` and the benchmark's own fields. `no_context` is the form used by
    setting `none`; without it that setting is refused. `chat=False` is completion style: no chat template,
    `prefill` is the last line of the prompt. `unit` renders one passage, document or chunk ({i}, {title},
    {text}). `cut` names the truncation rule of `context.fit`. `cites` says that the answer names `[DOC i]`.
    `official_titles` prints a unit's `official_title`, where it has one, in place of its title.
    """

    name: str
    user: str
    system: str | None = None
    no_context: str | None = None
    prefill: str = ""
    chat: bool = True
    unit: str = "[DOC {i}]\n{text}"
    joiner: str = "\n\n"
    cut: str = "passages"
    cites: bool = False
    official_titles: bool = False
    max_gen_toks: int = 2048
    until: tuple[str, ...] = ()
    source: str = ""

    def parts(self, units: Sequence[Unit]) -> list[str]:
        """Each passage, document or chunk rendered, numbered from 0."""
        titles = [(self.official_titles and u.official_title) or u.title for u in units]
        return [fill(self.unit, {"i": i, "title": titles[i], "text": u.text}) for i, u in enumerate(units)]

    def context(self, units: Sequence[Unit]) -> str:
        """The rendered units joined."""
        return self.joiner.join(self.parts(units))

    def messages(self, *, context: str | None, prefill: str = "", **fields: Any) -> list[dict[str, str]]:
        """Chat messages; a non-empty prefill (or `self.prefill`) becomes a last assistant message.

        `context=None` uses the no-context form. Raises IcrError when the format has none.
        """
        template = self.user if context is not None else self.no_context
        if template is None:
            raise IcrError(f"prompt {self.name!r} has no form without context; use another prompt or setting")
        user = fill(template, {"context": context or "", **fields})
        out = [{"role": "system", "content": self.system}] if self.system else []
        out.append({"role": "user", "content": user})
        if prefill or self.prefill:
            out.append({"role": "assistant", "content": prefill or self.prefill})
        return out


def fill(template: str, fields: dict[str, Any]) -> str:
    """Replace `{name}` once each, in one pass: braces inside the filled-in text stay as they are."""
    out, rest = [], template
    while True:
        spots = [(rest.find("{" + name + "}"), name) for name in fields]
        spots = [s for s in spots if s[0] >= 0]
        if not spots:
            return "".join([*out, rest])
        at, name = min(spots)
        out += [rest[:at], str(fields[name])]
        rest = rest[at + len(name) + 2 :]


def table(benchmark: str, dataset: str | None = None) -> dict[str, Prompt]:
    """All prompts of a benchmark (of one dataset where they differ by dataset), the default first."""
    if benchmark not in _HOMES:
        raise unknown("benchmark", benchmark, _HOMES)
    prompts = import_module(_HOMES[benchmark]).PROMPTS
    return prompts.get(dataset, prompts)


def get(benchmark: str, name: str | None = None, dataset: str | None = None) -> Prompt:
    """The prompt of that name (None: the benchmark's default). Raises IcrError with the nearest match."""
    known = table(benchmark, dataset)
    if name is not None and name not in known:
        raise unknown(f"{benchmark} prompt", name, known)
    return known[name or next(iter(known))]
