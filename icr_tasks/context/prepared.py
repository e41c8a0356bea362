"""Retrieval done ahead by `icr prepare`: which spans each item shows, kept per task, setting, prompt and
tokenizer.

A run that finds preparations of its task and setting, but none for its tokenizer, data or embedder, is
refused: it would compare a context that was never meant for it, or embed everything again on the machine that
was to be spared.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ..benchmarks.base import Unit
from ..errors import IcrError
from ..setting_options import split_task
from ..settings import Setting
from ..storage import cache_root, write_atomic
from .pool import tokenizer_key
from .retrieval import make
from .retrieval.vectors import name_of
from .tokens import TokenCounter

log = logging.getLogger("icr_tasks")
# 1: without the embedder's revision and the documents' content; 2: a sentence without blanks was one word of bm25. Void.
VERSION = 3
_KEYS = ("version", "rendering", "tokenizer_key", "data_revision", "retriever")
_SAID: set[str] = set()


@dataclass
class Prepared:
    """`head` says what it was made for; `items` maps an item id to {"spans", "content", "digest"}."""

    head: dict[str, Any]
    items: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self,
        item_id: str,
        units: Sequence[Unit],
        spans: Sequence[tuple[int, int, int]],
        digest: dict[str, Any],
    ) -> None:
        """Keep a selection (retrieve.Selection) of an item."""
        self.items[item_id] = entry(units, spans, digest)

    def get(self, item_id: str, units: Sequence[Unit]) -> tuple[list[Unit], dict[str, Any]] | None:
        """(units to show, digest) of an item; None for an item that was not prepared. IcrError for other
        documents."""
        found = self.items.get(item_id)
        if found is None:
            return None
        if found["content"] != _content(units):
            raise IcrError(
                f"the documents of item {item_id} changed since they were prepared; run: {self.command()}"
            )
        digest = found["digest"]
        if digest["whole"]:
            return list(units), digest
        return [_unit(units[owner], start, stop) for owner, start, stop in found["spans"]], digest

    def command(self, tokenizer: str | None = None) -> str:
        """The command that makes it (again)."""
        head = self.head
        more = "" if head["default_prompt"] else f" --prompt {head['prompt']}"
        return f"icr prepare --tasks {head['task']} --setting {head['setting']} --tokenizer {tokenizer or head['tokenizer']}{more}"

    @property
    def path(self) -> Path:
        """Its file in the cache."""
        head = self.head
        made_by = _short(
            head["data_revision"] + orjson.dumps(head["retriever"], option=orjson.OPT_SORT_KEYS).decode()
        )
        return folder(head) / f"{head['tokenizer_key']}-{made_by}.json"

    def save(self) -> Path:
        """Write it atomically."""
        write_atomic(self.path, orjson.dumps({"head": self.head, "items": self.items}))
        return self.path


def entry(
    units: Sequence[Unit], spans: Sequence[tuple[int, int, int]], digest: dict[str, Any]
) -> dict[str, Any]:
    """What is kept of a selection: where its pieces lie, the name of the documents' content, the digest."""
    return {"spans": list(spans), "content": _content(units), "digest": digest}


def head(task: Any, tokens: TokenCounter) -> dict[str, Any]:
    """What a retrieval done ahead for an ICRTask depends on."""
    prompt = task.prompt_format
    return {
        "version": VERSION,
        "task": split_task(task.config.task)[0],
        "setting": str(task.options.setting.rag or task.options.setting.context),
        "prompt": prompt.name,
        "default_prompt": task.options.prompt is None,
        "rendering": _short(prompt.unit + "\0" + prompt.joiner),
        "tokenizer": tokens.name,
        "tokenizer_key": tokenizer_key(tokens.tokenizer),
        "data_revision": task.sheet["data_revision"],
        "retriever": described(task.options.setting, task.options.embed),
    }


def described(setting: Setting, engine: Mapping[str, Any]) -> dict[str, Any]:
    """What a setting's retriever is beside its name: embedder, revision, instruction (none of which it
    prints)."""
    rag = setting.rag
    return make(rag.params["retriever"], rag.params, engine).describe() if rag else {}


def lookup(task: Any, tokens: TokenCounter | None) -> Prepared | None:
    """The preparation an ICRTask should use; None without one, with `prepared: false`, and for other
    settings."""
    if task.options.setting.rag is None or tokens is None or not task.options.prepared:
        return None
    return find(head(task, tokens))


def folder(wanted: dict[str, Any]) -> Path:
    """All preparations of one task, setting and prompt."""
    setting = re.sub(r"[^A-Za-z0-9.=@]+", "-", wanted["setting"])
    return (
        cache_root()
        / "prepared"
        / wanted["task"]
        / f"{setting}--{wanted['prompt']}-{_short(wanted['setting'])}"
    )


def find(wanted: dict[str, Any]) -> Prepared | None:
    """The preparation for `wanted`, None when there is none of this task and setting. IcrError when all are
    for others."""
    found = [p for path in sorted(folder(wanted).glob("*.json")) if (p := _read(path)) is not None]
    found = [p for p in found if _current(p, wanted)]
    exact = [p for p in found if all(p.head.get(k) == wanted[k] for k in _KEYS)]
    if exact or not found:
        return exact[0] if exact else None
    likely = [p for p in found if all(p.head.get(k) == wanted[k] for k in _KEYS[:-1])]
    if len(likely) == 1 and _unknown_here(likely[0].head["retriever"], wanted["retriever"]):
        made_by = likely[0].head["retriever"]
        log.warning(
            "the embedder %s is not on this machine; using what was prepared with its revision %s",
            made_by["embedder"],
            made_by["revision"],
        )
        return likely[0]
    other = (likely or found)[0].head
    if other["tokenizer_key"] != wanted["tokenizer_key"]:
        why = f"tokenizer {other['tokenizer']}, this run uses {wanted['tokenizer']}"
    elif other["data_revision"] != wanted["data_revision"]:
        why = f"data {other['data_revision']}, this run has {wanted['data_revision']}"
    elif other["retriever"] != wanted["retriever"]:
        why = f"embedder {_shown(other['retriever'])}, this run has {_shown(wanted['retriever'])}"
    else:
        why = "another version of the prompt or of icr-tasks"
    command = Prepared(wanted).command()
    raise IcrError(
        f"{wanted['task']} {wanted['setting']} was prepared for {why}\n  prepare it:  {command}\n"
        "  or retrieve while running:  --metadata '{\"prepared\":false, ...}'"
    )


def _current(found: Prepared, wanted: dict[str, Any]) -> bool:
    """Whether it is of this layout; that earlier ones are void is said once a task and setting."""
    if found.head.get("version") == VERSION:
        return True
    what = f"{wanted['task']} {wanted['setting']}"
    if what not in _SAID:
        _SAID.add(what)
        log.warning(
            "what an earlier version prepared for %s is not used, because it ranked otherwise or does not say what it "
            "was made from; retrieving again. Prepare it anew:  %s",
            what,
            Prepared(wanted).command(),
        )
    return False


def _unknown_here(prepared: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether this machine has no files of the embedder that could contradict what was prepared."""
    same_name = prepared.get("embedder") == here.get("embedder")
    return same_name and here.get("revision") == "unpinned" != prepared.get("revision")


def _shown(described: Mapping[str, Any]) -> str:
    instruction = described.get("instruction")
    told = f" with instruction {instruction!r}" if instruction else ""
    return f"{described.get('embedder')} at {described.get('revision')}{told}"


def _read(path: Path) -> Prepared | None:
    try:
        raw = orjson.loads(path.read_bytes())
        return Prepared(raw["head"], raw["items"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s); retrieving again", path, error)
        return None


def _unit(unit: Unit, start: int, stop: int) -> Unit:
    if start == 0 and stop == len(unit.text):
        return unit
    return unit.cut(start, stop)


def _content(units: Sequence[Unit]) -> str:
    return name_of(part for u in units for part in (u.title, u.text))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
