"""Chat messages as data: checked, and cut into the exchanges that are the units of a conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson

from .base import Unit

Message = dict[str, Any]
Turn = tuple[str, str]  # role, content


def is_talk(value: Any) -> bool:
    """Whether that is a list of messages with role and content."""
    return isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in value
    )


def asked(text: str, name: str) -> list[Message]:
    """Messages of the JSON text in field `name`, which end with the user's question. ValueError for another
    text."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"field {name!r} is not a JSON list of messages ({error})") from error
    if not is_talk(found):
        raise ValueError(f"field {name!r} is not a list of messages with role and content")
    if not found or found[-1]["role"] != "user":
        raise ValueError("the conversation does not end with the user's question")
    return list(found)


def exchanges(messages: Sequence[Message]) -> tuple[list[list[str]], list[list[Turn]]]:
    """(what precedes the conversation, its exchanges: a request and the text that was written for it)."""
    pairs: list[list[Turn]] = []
    opening: list[list[str]] = []
    for message in messages:
        turn = (message["role"], message["content"])
        if turn[0] != "user" and pairs and len(pairs[-1]) == 1:
            pairs[-1].append(turn)
        else:
            pairs.append([turn])
    while pairs and len(pairs[0]) == 1 and pairs[0][0][0] != "assistant":
        opening.append(list(pairs.pop(0)[0]))
    return opening, pairs


def sessions(talks: Sequence[Sequence[Message]], dates: Sequence[str], gold: Sequence[bool]) -> list[Unit]:
    """A history: each talk a unit, by date and numbered, its turns as JSON (role and content alone)."""
    return [
        Unit(
            f"session-{place}",
            json.dumps([{"role": turn["role"], "content": turn["content"]} for turn in talks[n]]),
            dates[n],
            gold=gold[n],
        )
        for place, n in enumerate(sorted(range(len(talks)), key=lambda n: dates[n]))
    ]


def unit(number: int, turns: Sequence[Turn], gold: bool) -> Unit:
    """An exchange as a unit; its text, for retrieval and completion prompts, says who speaks."""
    text = "\n".join(f"{role}: {content}" for role, content in turns)
    return Unit(f"turn-{number}", text, gold=gold, turns=tuple(turns))
