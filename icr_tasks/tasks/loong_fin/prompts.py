"""Loong, English financial reports: the paper's Table 7 and Loong's own template."""

from __future__ import annotations

from ...context.prompts import Prompt

_SYSTEM = "You are an expert in answering questions about financial reports."
_UNIT = "《{title}》\n{text}\n"


def _prompt(name: str, user: str, system: str | None, source: str) -> Prompt:
    none = user.removeprefix("{context}\n\n")
    return Prompt(
        name, user, system, no_context=none, unit=_UNIT, joiner="\n", cut="documents", max_gen_toks=2048, source=source
    )


PROMPTS: dict[str, Prompt] = {
    "paper": _prompt("paper", "{context}\n\n{instruction}\n\n{question}.", _SYSTEM, "arXiv 2601.18527, Table 7"),
    "official": _prompt(
        "official", "{context}\n\n{instruction}\n\n{question}", None, "MozerWang/Loong prompt_template"
    ),
}
