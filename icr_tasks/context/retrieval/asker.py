"""What to search for next: rules over names, or a served model. They know the question and what was read, no
benchmark.

`rules` follows names: a name that stands in a sentence which speaks of the question, and not in the question,
is what a second hop needs (bridge entities; Qi et al., GoldEn Retriever, arXiv 1910.07000). A served model
asks in its own words (Trivedi et al., IRCoT, arXiv 2212.10509; Press et al., Self-Ask, arXiv 2210.03350); its
answers are kept on disk.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import orjson

from ...errors import IcrError
from ...listing import Stay
from ...metrics.given import given
from ...storage import cache_root, noted, write_atomic
from .vectors import name_of

_NAME = re.compile(
    r"[A-Z0-9][\w.&'’-]*(?:\s+(?:(?:of|the|de|del|la|van|von|der|and|&|for)\s+){0,2}[A-Z][\w.&'’-]*)*"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'“])|\n+")
_PARTS = re.compile(r",|\band\b|\bor\b|\bthan\b|\bwho\b|\bwhich\b|\bthat\b|\bwhose\b|\bwhere\b", re.I)
_WORD = re.compile(r"\w+")
_PLAIN = re.compile(r"\s*\(.*?\)$")  # Backstage (magazine)
_QUESTIONS = "who what when where which whose whom why how did does was were is are do has have had that with from than"
_CALENDAR = (
    "january february march april may june july august september october november december monday tuesday "
    "wednesday "
    "thursday friday saturday sunday"
)
MAX_QUERIES = 3  # a round
_MOST = 2048  # tokens of a served asker's reply, thoughts among them


class Asker(Protocol):
    """Two questions about a question; both may be answered with []."""

    def parts(self, question: str) -> list[str]:
        """Sub-questions that can be searched for on their own."""

    def further(
        self, question: str, read: Sequence[tuple[str, str]], titles: Sequence[str] = ()
    ) -> list[str]:
        """What to search for after reading these (title, text), best first; `titles` are those of all
        documents."""


def make(name: str, engine: dict[str, Any]) -> Asker:
    """`rules`, or the model of that name at `engine["ask_url"]`. IcrError where a model has no address."""
    return Rules() if name == "rules" else Served(name, str(engine.get("ask_url") or engine.get("url") or ""))


@lru_cache(maxsize=1)
def _stop() -> frozenset[str]:
    from .bm25 import package

    return package()[1] | frozenset(_QUESTIONS.split())


def _words(text: str) -> set[str]:
    return {w for w in _WORD.findall(text.lower()) if w not in _stop()}


def names(text: str) -> list[str]:
    """Capitalised names in order, without repeats; a word that only stands at the beginning of a sentence is
    none."""
    found: list[str] = []
    for sentence in _SENTENCE.split(text):
        for match in _NAME.finditer(sentence):
            words = match[0].strip(" .,'’-").split()
            while words and words[0].lower() in _stop():
                words = words[1:]
            if len(words) == 1 and (match.start() == 0 or len(words[0]) < 3):
                continue
            if words and (words[0][0].isdigit() or words[0].lower() in _CALENDAR.split()):
                continue
            if words and (name := " ".join(words)) not in found:
                found.append(name)
    return found


class Rules:
    """Names and conjunctions; no model."""

    def parts(self, question: str) -> list[str]:
        """The clauses of a question, each with its own names; of two things compared, one search a thing."""
        about = names(question)
        rest = _words(question) - {w for name in about for w in _words(name)}
        if len(about) > 1:
            tail = " ".join(w for w in _WORD.findall(question.lower()) if w in rest)
            return [f"{name} {tail}".strip() for name in about]
        clauses = [clause.strip(" ?.") for clause in _PARTS.split(question)]
        clauses = [clause for clause in clauses if len(_words(clause)) > 1]
        return clauses if len(clauses) > 1 else []

    def further(
        self, question: str, read: Sequence[tuple[str, str]], titles: Sequence[str] = ()
    ) -> list[str]:
        """The question's other words behind each new name; first names that are titles, then those of the
        sentences nearest to the question."""
        wanted, known = _words(question), question.lower()
        heads = {_PLAIN.sub("", title).lower() for title in titles}
        found: dict[str, tuple[bool, float, int]] = {}
        for rank, (title, text) in enumerate(read):
            about = _words(title)
            for sentence in _SENTENCE.split(text):
                shared = len((_words(sentence) | about) & wanted) / max(len(wanted), 1)
                for name in names(sentence):
                    new = _words(name) - wanted - about
                    if new and name.lower() not in known and shared:
                        rated = (name.lower() in heads, shared, -rank)
                        found[name] = max(found.get(name, rated), rated)
        best = sorted(found, key=lambda name: found[name], reverse=True)
        used = {w for name in names(question) for w in _words(name)}
        rest = " ".join(w for w in _WORD.findall(question.lower()) if w in wanted - used)
        return [f"{name} {rest}".strip() for name in best[:MAX_QUERIES]]


_ASK_PARTS = (
    "Split the question into at most three short questions that can each be looked up on its own, one a "
    "line. "
    "If it needs no splitting, repeat it.\n\nQuestion: {question}"
)
_ASK_NEXT = (
    "{passages}\n\nQuestion: {question}\n\nWhat is still missing to answer the question? Write at most "
    "three short search "
    "queries for it, one a line, with the names that the passages give. Write NONE if nothing is missing."
)


class Served:
    """A model behind an OpenAI-compatible chat server, greedy; equal requests are answered from disk."""

    def __init__(self, name: str, url: str) -> None:
        if not url:
            raise IcrError(
                f'asker={name} is a served model: give its address as "ask_url":"http://host:8000/v1"'
            )
        self.name, self.url = name, url.rstrip("/")

    def parts(self, question: str) -> list[str]:
        """The model's sub-questions."""
        return [q for q in self._ask(_ASK_PARTS.format(question=question)) if q.lower() != question.lower()]

    def further(
        self, question: str, read: Sequence[tuple[str, str]], titles: Sequence[str] = ()
    ) -> list[str]:
        """The model's queries after reading."""
        passages = "\n\n".join(f"{title}\n{text}" if title else text for title, text in read)
        return self._ask(_ASK_NEXT.replace("{passages}", passages).replace("{question}", question))

    def _ask(self, prompt: str) -> list[str]:
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": _MOST,
        }
        path = cache_root() / "asked" / f"{name_of([self.name, prompt])}.json"
        if (known := noted(path)) is not None:
            return [str(line) for line in known]
        raw = self._visible(post(f"{self.url}/chat/completions", body))
        lines = [re.sub(r"^\s*(?:[-*•]|\d+[.)])\s*", "", line).strip() for line in raw.splitlines()]
        lines = [line for line in lines if line and line.upper().strip(".") != "NONE"][:MAX_QUERIES]
        write_atomic(path, orjson.dumps(lines))
        return lines

    def _visible(self, answer: Any) -> str:
        """What is read of a reply: its thoughts are no queries. IcrError for none, and for a thought that never
        ends, which would be taken for "nothing is missing"."""
        try:
            choice = answer["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason")
            content, thoughts = (
                message.get("content"),
                message.get("reasoning_content") or message.get("reasoning"),
            )
        except (LookupError, TypeError, AttributeError) as error:
            raise IcrError(
                f"asker={self.name}: {self.url} sent no answer ({type(error).__name__}: {error})"
            ) from error
        seen = given(content, finish_reason=finish)
        if not seen.text.strip() and (seen.unfinished or thoughts):
            raise IcrError(
                f"asker={self.name}: nothing but thoughts within {_MOST} tokens; name a model that does not think, or "
                "serve it with its thinking switched off"
            )
        return seen.text


def post(url: str, body: dict[str, Any], seconds: float = 120) -> Any:
    """JSON answer of a server (key in OPENAI_API_KEY). IcrError with what it said; a redirect is not followed."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    if key := os.environ.get("OPENAI_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=seconds) as answer:
            return json.loads(answer.read())
    except (OSError, ValueError) as error:
        raise IcrError(f"{url.split('?')[0].rsplit('@', 1)[-1]}: {error}") from error
