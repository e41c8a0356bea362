"""The record every benchmark is read into. Context is loaded on demand and never stored on the item."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import IcrError
from ..registry import BENCHMARKS


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of context: a passage (HELMET, synth), a filing (Loong) or a whole book (InfiniteBench).

    `relevance` is the benchmark's own graded score of a passage (HELMET's reranker), None where it gives
    none. `official_title` is what the benchmark's own template prints where that differs from `title`
    (Loong). `turns` are the chat messages (role, content) of a unit that is part of a conversation; `text`
    is then what a retriever reads of it.
    """

    id: str
    text: str
    title: str = ""
    gold: bool = False
    relevance: float | None = None
    official_title: str = ""
    turns: tuple[tuple[str, str], ...] = ()

    def cut(self, start: int, stop: int) -> Unit:
        """Characters [start, stop) as a unit of their own, under the same titles."""
        return replace(self, id=f"{self.id}#{start}", text=self.text[start:stop], relevance=None)


@dataclass(frozen=True, slots=True)
class Item:
    """One example.

    `units()` reads the context from disk each time it is called. `cluster` names the unit items share
    (question in HELMET, book in InfiniteBench, filings in Loong). `keys` are breakdown columns (depth,
    difficulty, domain, level ...). `fields` holds what the benchmark's templates or scorer need besides
    (instruction, dict answers, demonstrations ...), JSON-serialisable; its `documents`, if any, say which
    files the context was read from, in the order shown, and are logged; its `opening` are chat messages
    [role, content] that precede a conversation in every setting; its `rule` is what a judge has to know of
    this item besides question and gold. `sealed`: the benchmark asks that its texts never appear in plain
    text; logs hold their hashes.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    cluster: str
    units: Callable[[], Sequence[Unit]]
    options: tuple[str, ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class ItemSet:
    """Items of one task and where they come from.

    `n_expected` is the official count (paper, official repository); `official` is False when the file at
    hand is not the official one (other count or other hash), which every report must say.
    """

    items: Sequence[Item]
    n_expected: int
    source: str
    revision: str
    official: bool
    notes: tuple[str, ...] = ()


def digest(text: str) -> str:
    """16 hex digits that stand for a text: the name of a cluster, the version of a prompt."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---- prompts -------------------------------------------------------------------------------------
# Prompt formats. Training and evaluation use these same objects.


@dataclass(frozen=True)
class Prompt:
    """One instruction format.

    `user` has `{context}`, `{question}` and the benchmark's own fields. `no_context` is the form used by
    setting `none`; without it that setting is refused. `chat=False` is completion style: no chat template,
    `prefill` is the last line of the prompt. `unit` renders one passage, document or chunk ({i}, {title},
    {text}). `cut` names the truncation rule of `context.fit`. `cites` says that the answer names `[DOC i]`.
    `official_titles` prints a unit's `official_title`, where it has one, in place of its title. `turns`: the
    context is a conversation, whose messages are sent as chat turns before `user`. `ordered`: the order of
    the units means something, so retrieval keeps it, as that of a conversation. `{n}` counts units from 1.
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
    turns: bool = False
    ordered: bool = False
    max_gen_toks: int = 2048
    until: tuple[str, ...] = ()
    source: str = ""

    @property
    def sha(self) -> str:
        """16 hex digits of everything that is sent beside context and question."""
        texts = (self.user, self.system, self.no_context, self.prefill, self.chat, self.unit, self.joiner)
        return digest(repr((*texts, self.cites, self.turns)))

    def parts(self, units: Sequence[Unit]) -> list[str]:
        """Each passage, document or chunk rendered, numbered from 0 ({i}) or 1 ({n})."""
        titles = [(self.official_titles and u.official_title) or u.title for u in units]
        return [
            fill(self.unit, {"i": i, "n": i + 1, "title": titles[i], "text": u.text})
            for i, u in enumerate(units)
        ]

    def context(self, units: Sequence[Unit]) -> str:
        """The rendered units joined."""
        return self.joiner.join(self.parts(units))

    def messages(
        self, *, context: str | None, prefill: str = "", turns: Sequence[Sequence[str]] = (), **fields: Any
    ) -> list[dict[str, str]]:
        """Chat messages; a non-empty prefill (or `self.prefill`) becomes a last assistant message.

        `context=None` uses the no-context form. `turns` are earlier (role, content) messages. Raises IcrError
        when the format has none.
        """
        template = self.user if context is not None else self.no_context
        if template is None:
            raise IcrError(f"prompt {self.name!r} has no form without context; use another prompt or setting")
        user = fill(template, {"context": context or "", **fields})
        out = [{"role": "system", "content": self.system}] if self.system else []
        out += [{"role": role, "content": content} for role, content in turns]
        out.append({"role": "user", "content": user})
        if prefill or self.prefill:
            out.append({"role": "assistant", "content": prefill or self.prefill})
        return out


def fill(template: str, fields: dict[str, Any]) -> str:
    """Replace `{name}` once each, in one pass: braces inside the filled-in text stay as they are."""
    out: list[str] = []
    rest = template
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
    return BENCHMARKS[benchmark].prompt_table(dataset)


def get(benchmark: str, name: str | None = None, dataset: str | None = None) -> Prompt:
    """The prompt of that name (None: the benchmark's default). Raises IcrError with the nearest match.

    >>> get("helmet_rag", "ao").messages(context="[DOC 0] ...", question="Who?")[0]["role"]
    'system'
    """
    return BENCHMARKS[benchmark].prompt(name, dataset)
