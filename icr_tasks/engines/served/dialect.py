"""What OpenAI-compatible servers disagree about: names of parameters, which they refuse, how they answer.

A server's refusal teaches the dialect once for the whole run: `max_completion_tokens` for `max_tokens`, no
`temperature` (reasoning models), no `stop` or `seed`. Only what nobody asked for is left out: a temperature
that the user gave is never dropped. What was changed is recorded with every answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import IcrError
from ...metrics.visible import visible
from ..thoughts import cut
from .price import Usage

_LENGTHS = ("max_gen_toks", "max_tokens", "max_new_tokens", "max_completion_tokens")
OURS = ("do_sample", "until", "temperature", *_LENGTHS)
_GIVEN_UP = ("error", "abort")  # finish reasons of no answer (OpenRouter, vLLM), with HTTP 200
_STOPS = 4  # as many as OpenAI takes; all are applied here as well
# A prompt that is too long is one item's trouble, although such texts name max_tokens too.
_TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|maximum (?:context|model) len|too (?:long|many tokens)|longer "
    r"than the"
    r"|exceeds? (?:the )?(?:model|max|available|limit)|exceed(?:s|ed)? (?:the )?context|max_model_len|is too large",
    re.I,
)
_REFUSES = re.compile(
    r"unsupported|not (?:be "
    r")?(?:supported|permitted|allowed|accepted|available)|unrecogni[sz]ed|unknown|unexpected"
    r"|does(?: not|n't) support|extra (?:inputs|fields)|extra_forbidden|invalid|must be|not a valid|only "
    r"the default",
    re.I,
)


# Only a name that is refused has another one: a server that refuses the value under one name may not know the other,
# and would then answer without any limit.
_NAME = re.compile(
    r"unsupported|not (?:be )?(?:supported|permitted|allowed|accepted|available)|unrecogni[sz]ed|unknown|unexpected"
    r"|does(?: not|n't) support|extra (?:inputs|fields)|extra_forbidden|deprecated",
    re.I,
)
_VALUE = re.compile(
    r"unsupported[ _]value|\brange\b|at (?:most|least)|(?:less|greater|larger) than|between", re.I
)
_INSTEAD = re.compile(r"\buse\b|\binstead\b|replaced", re.I)


class Refused(Exception):
    """This one request is not acceptable to the server."""


class Unreadable(Exception):
    """A reply that is none: HTML, no choices, no text; asked for again."""


@dataclass
class Dialect:
    """How to write a request for this server. `version` counts what was learnt."""

    length: str = "max_tokens"
    without: set[str] = field(default_factory=set)
    version: int = 0
    _lengths_tried: set[str] = field(default_factory=set)

    def body(
        self,
        model: str,
        prompt: str | list[dict[str, Any]],
        kwargs: Mapping[str, Any],
        extra: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The JSON of a request: a chat for messages, a completion for text. `kwargs` are lm-eval's
        generation arguments; those of no meaning here go to the server as they are."""
        made: dict[str, Any] = {"model": model}
        made["prompt" if isinstance(prompt, str) else "messages"] = prompt
        made[self.length] = length_of(kwargs)
        made["temperature"] = kwargs.get("temperature") or 0
        if stops := stops_of(kwargs):
            made["stop"] = stops[:_STOPS]
        made |= {name: value for name, value in kwargs.items() if name not in OURS and value is not None}
        made |= extra
        return {name: value for name, value in made.items() if name not in self.without}

    def learn(self, said: str, param: str | None, sent: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
        """Whether a refusal was about the dialect, which then is another one; False where it is about the
        prompt.

        `asked` are the parameters that the user named. Raises IcrError for one of them that is refused.
        """
        if _TOO_LONG.search(said) and not re.search(
            r"unsupported|unrecogni[sz]ed|extra_forbidden", said, re.I
        ):
            return False
        named = [name for name in sent if name == param or re.search(rf"\b{re.escape(name)}\b", said)]
        other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[self.length]
        renamed = self.length in named and _name_refused(said, other)
        if not named or not (renamed or param in sent or _REFUSES.search(said)):
            return False
        self._lengths_tried.add(self.length)
        if renamed and other not in self._lengths_tried:
            self.length, self.version = other, self.version + 1
            return True
        for name in named:
            if name in asked:
                raise IcrError(
                    f"the server refuses {name}={asked[name]!r}, which was asked for ({said[:200]}); "
                    "leave it out"
                )
            if name in ("temperature", "stop", "seed"):
                self.without.add(name)
                self.version += 1
                return True
        return False

    def record(self) -> dict[str, Any]:
        """What differs from a plain request; empty where nothing does."""
        told: dict[str, Any] = {"without": sorted(self.without)} if self.without else {}
        return told | ({"length": self.length} if self.length != "max_tokens" else {})


def _name_refused(said: str, other: str) -> bool:
    """Whether a refusal is about the name of a parameter that is also called `other`, not about its value."""
    return not _VALUE.search(said) and bool(_NAME.search(said) or (other in said and _INSTEAD.search(said)))


def length_of(kwargs: Mapping[str, Any]) -> int:
    """How many tokens may be generated, whichever name says it; a name of the user's own comes before the
    task's."""
    named = [int(kwargs[name]) for name in (*_LENGTHS[1:], _LENGTHS[0]) if kwargs.get(name) is not None]
    return named[0] if named else 256


def stops_of(kwargs: Mapping[str, Any]) -> list[str]:
    """The stop strings; an empty one would be none."""
    until = kwargs.get("until") or []
    return [stop for stop in ([until] if isinstance(until, str) else list(until)) if stop]


def said_of(text: str) -> tuple[str, str | None, Any]:
    """(message, parameter, code) of an error body in any of the forms of OpenAI, vLLM, SGLang and FastAPI."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        plain = re.sub(r"<[^<>]{0,200}>", " ", text[:2000])
        return " ".join(plain.split())[:300] or "no reason given", None, None
    inner = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(inner, dict) and isinstance(inner.get("detail"), list | str):
        inner = inner["detail"]
    if isinstance(inner, list) and inner and isinstance(inner[0], dict):  # FastAPI: one entry a wrong field
        place = [part for part in inner[0].get("loc", ()) if isinstance(part, str) and part != "body"]
        return (
            f"{'.'.join(place)}: {inner[0].get('msg')} ({inner[0].get('type')})",
            place[0] if place else None,
            None,
        )
    if isinstance(inner, dict):
        param = inner.get("param")
        said = inner.get("message") or inner.get("msg") or json.dumps(inner)
        return " ".join(str(said).split())[:500], param if isinstance(param, str) else None, inner.get("code")
    return " ".join(str(inner).split())[:500], None, None


@dataclass(frozen=True)
class Reply:
    """One answer: `text` as it is scored (thoughts inside marks), None where the server gave nothing at
    all."""

    text: str | None
    finish: str | None
    usage: Usage
    model: str | None
    build: str | None  # the server's system_fingerprint


def read(raw: str, until: Sequence[str] = (), think_end: str | None = None) -> Reply:
    """A response body. Raises Unreadable for what is none, Refused for an error in the clothes of a reply."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        kind = "HTML" if "<html" in raw[:2000].lower() or "<!doctype" in raw[:200].lower() else "no JSON"
        raise Unreadable(f"the server sent {kind} instead of an answer: {raw[:80]!r}") from None
    if isinstance(body, dict) and body.get("error") and not body.get("choices"):
        raise _failed(raw, "the server sent an error")
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(c, dict) for c in choices):
        raise Unreadable("the reply has no choices")
    choice = next((c for c in choices if c.get("index", 0) == 0), choices[0])
    finish = choice.get("finish_reason")
    if choice.get("error"):
        raise _failed(json.dumps({"error": choice["error"]}), "the server gave up on the answer")
    if finish in _GIVEN_UP:
        raise Unreadable(f"the server gave up on the answer: finish_reason {finish!r}")
    model, build = body.get("model"), body.get("system_fingerprint")
    if "message" in choice:
        message = choice["message"] if isinstance(choice["message"], dict) else {}
        if not {"content", "refusal", "reasoning_content", "reasoning", "tool_calls"} & message.keys():
            raise Unreadable("the reply's message has no content")
        content = _text(message.get("content"))
        content = _text(message.get("refusal")) if content is None else content
        thoughts = _text(message.get("reasoning_content")) or _text(message.get("reasoning")) or ""
        kept = None if content is None else cut(content, until, think_end)
        text = with_thoughts(thoughts, kept)
    elif "text" in choice:
        content = _text(choice["text"])
        text = kept = None if content is None else cut(content, until, think_end)
    else:
        raise Unreadable("the reply holds neither a message nor a text")
    if kept != content:
        finish = "stop"  # at a string that the server was not told
    return Reply(
        text,
        finish if isinstance(finish, str) else None,
        Usage.read(body.get("usage")),
        model if isinstance(model, str) and model else None,
        build if isinstance(build, str) and build else None,
    )


def _failed(raw: str, what: str) -> Refused | Unreadable:
    """What an error in a reply of HTTP 200 means: its code says whether asking again may help."""
    said, _, code = said_of(raw)
    if isinstance(code, int) and 400 <= code < 500 and code not in (408, 409, 425, 429):
        return Refused(said)
    return Unreadable(f"{what}: {said}")


def _text(value: Any) -> str | None:
    """A content as text: a string, or the text parts of a list; None for nothing."""
    if isinstance(value, list):
        parts = [
            part.get("text")
            for part in value
            if isinstance(part, dict) and part.get("type") in ("text", None)
        ]
        value = "".join(part for part in parts if isinstance(part, str)) if parts else None
    if value is None:
        return None
    if not isinstance(value, str):
        raise Unreadable(f"the content of the reply is no text but {type(value).__name__}")
    return value.encode("utf-8", "replace").decode()


def with_thoughts(thoughts: str, content: str | None) -> str | None:
    """Thoughts that the server's parser took out, put back inside marks: then a parsed and an unparsed answer
    are the same text, and thoughts without an answer are an open thought, never an empty answer."""
    if not thoughts.strip():
        return content
    if content is None or not content.strip():
        return f"<think>\n{thoughts}"
    whole = f"<think>\n{thoughts}\n</think>\n\n{content}"
    return whole if visible(whole).text == visible(content).text.strip() else content
