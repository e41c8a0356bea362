"""Answer requests with a store: what is stored is not generated again, what is new is stored as it finishes.

Used by `--model icr-vllm` (whose engine streams) and by the sweep, which gives the same to every lm-eval
model.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from ..credentials import redact_text
from ..errors import IcrError
from ..kv import choose
from ..storage import locked
from . import session

# ---- store ---------------------------------------------------------------------------------------
# Answers that survive: an append-only file of (prompt, generation kwargs) -> answer, one per engine
# fingerprint.


class CannotStore(IcrError):
    """An answer cannot be written (disk full, quota, read-only): going on would only lose work."""


class AnswerStore:
    """Maps a request's key to its stored record. `fingerprint` names what changes answers (model, dtype,
    engine ...). A `part` ("3of8") writes a file of its own beside the others' and reads them all: writers on
    several machines then need no lock."""

    def __init__(self, folder: str | Path, fingerprint: dict[str, Any], part: str | None = None) -> None:
        name = hashlib.sha256(json.dumps(fingerprint, sort_keys=True, default=str).encode()).hexdigest()[:12]
        self.name = f"{name}.jsonl"
        self.path = Path(folder) / (f"{name}.{part}.jsonl" if part else self.name)
        self._shared = part is None  # several processes append to the file
        self.damaged = 0
        self._found: dict[str, dict[str, Any]] = {}
        self._read_to = 0
        self._others: dict[Path, int] = {}  # files of other parts, and how far they were read
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o644)
            self.refresh()
        except OSError as error:
            raise IcrError(
                f"answer store {self.path} cannot be opened ({error.strerror}); choose another store="
            ) from error

    def refresh(self) -> None:
        """Read what was appended since, by this or another process; the first answer to a request stays: that of
        this file, then of the others in the order of their names."""
        self._refresh_own()
        for path in files_of(self.path.parent, self.name):
            if path != self.path:
                self._read_other(path)

    def _read_other(self, path: Path) -> None:
        """Whole lines of another part's file, which is not touched: its writer may be in the middle of one."""
        start = self._others.get(path, 0)
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._others[path] = start + whole
        self._take(data[:whole])

    def _refresh_own(self) -> None:
        if os.fstat(self._file).st_size == self._read_to:
            return
        with locked(self._file, needed=self._shared):
            size = os.fstat(self._file).st_size
            data = os.pread(self._file, size - self._read_to, self._read_to)
            if data and not data.endswith(b"\n"):
                # Nobody is writing now, so this is what a kill left: it must not swallow the next line.
                size += os.write(self._file, b"\n")
            self._read_to = size
        self._take(data)

    def _take(self, data: bytes) -> None:
        for raw in data.split(b"\n"):
            if not raw:
                continue
            if (record := record_of(raw)) is None:
                self.damaged += 1
            else:
                self._found.setdefault(record["key"], record)

    @staticmethod
    def key(prompt: str, gen_kwargs: dict[str, Any]) -> str:
        """Identity of a request."""
        text = prompt + "\0" + json.dumps(gen_kwargs, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored record, or None."""
        return self._found.get(key)

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Append a record. Raises CannotStore when the disk is full; the file then ends with the last whole
        line."""
        line = _with_sum(orjson.dumps({"key": key, **record})) + b"\n"
        try:
            with locked(self._file, needed=self._shared):
                before = os.fstat(self._file).st_size
                try:
                    written = os.write(self._file, line)
                    if written != len(line):  # the rest would not fit: this call raises, with the reason
                        written += os.write(self._file, line[written:])
                except OSError:
                    os.ftruncate(self._file, before)
                    raise
        except OSError as error:
            raise CannotStore(
                f"cannot store an answer in {self.path} ({error.strerror}); stored answers are kept: free "
                "space, "
                "then run the same command again"
            ) from error
        self._found.setdefault(key, {"key": key, **record})

    def keys(self) -> set[str]:
        """Keys of all stored answers."""
        return set(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)


def files_of(folder: Path, name: str) -> list[Path]:
    """The files of a store `name` (FINGERPRINT.jsonl): its own, then those of its parts, by name."""
    stem = name.removesuffix(".jsonl")
    own = folder / name
    return [*([own] if own.is_file() else []), *sorted(folder.glob(f"{stem}.*.jsonl"))]


def record_of(line: bytes) -> dict[str, Any] | None:
    """The record of a line as it was written; None for one that is damaged."""
    try:
        found = orjson.loads(_without_sum(line))
    except ValueError:
        return None
    return found if isinstance(found, dict) and "key" in found and "text" in found else None


_SUM = re.compile(rb',"sum":"([0-9a-f]{16})"\}\Z')


def _with_sum(line: bytes) -> bytes:
    """A record's JSON with a checksum as its last field: a line changed later is noticed although it is valid
    JSON."""
    return line[:-1] + b',"sum":"' + hashlib.blake2b(line, digest_size=8).hexdigest().encode() + b'"}'


def _without_sum(line: bytes) -> bytes:
    """The record as it was written; lines of an older version have no checksum. Raises ValueError for another
    one."""
    found = _SUM.search(line)
    if found is None:
        return line
    plain = line[: found.start()] + b"}"
    if hashlib.blake2b(plain, digest_size=8).hexdigest().encode() != found[1]:
        raise ValueError("the line was changed")
    return plain


log = logging.getLogger("icr_tasks")
# One finished request: index, text, what was measured ("error" when it failed).
Stream = Callable[[Sequence[Any], list[int]], Iterator[tuple[int, str, dict[str, Any]]]]
_FIRST_CUT, _GROWTH = 128, 1.5
_GIVE_UP = 5


def text_of(prompt: Any) -> str:
    """The prompt's text; chat APIs get lm-eval's JsonChatStr."""
    return prompt if isinstance(prompt, str) else prompt.prompt


def key_of(request: Any) -> str:
    """Store key: prompt, generation kwargs and, where the engine changes the cache, the setting and what is behind it."""
    prompt, kwargs = request.args
    setting = session.setting_of(request)
    salt = f"\0{setting}" if setting is not None and setting.compressed else ""
    if setting is not None and (more := choose.behind(setting)):
        salt += f"\0{json.dumps(more, sort_keys=True)}"
    return AnswerStore.key(text_of(prompt) + salt, kwargs)


def keys_of(requests: Iterable[Any]) -> list[str]:
    """Keys of all requests; a repeated request that is sampled has one key a repeat, a greedy one the
    same."""
    seen: dict[str, int] = {}
    keys = []
    for request in requests:
        key = key_of(request)
        seen[key] = number = seen.get(key, -1) + 1
        keys.append(f"{key}-{number}" if number and request.args[1].get("do_sample") else key)
    return keys


def by_prefix(requests: Sequence[Any], which: Iterable[int]) -> list[int]:
    """Order in which prompts with a common beginning stand together, the longest common beginnings closest.

    Only hashes of growing beginnings are kept, so this needs no copy of the prompts.
    """
    return sorted(which, key=lambda i: prefix_key(text_of(requests[i].args[0])))


def prefix_key(text: str) -> tuple[bytes, ...]:
    """Hashes of growing pieces of the text: equal beginnings give equal beginnings of the key."""
    data, digest, key, start, cut = (
        text.encode("utf-8", "surrogatepass"),
        hashlib.blake2b(digest_size=8),
        [],
        0,
        0.0,
    )
    while start < len(data):
        cut = max(cut * _GROWTH, _FIRST_CUT)
        digest.update(data[start : int(cut)])
        key.append(digest.digest())
        start = int(cut)
    return tuple(key)


def through(
    store: AnswerStore | None,
    keys: Mapping[int, str],
    generate: Callable[[list[int]], Iterable[tuple[int, str, dict[str, Any]]]],
) -> Iterator[tuple[int, str, dict[str, Any], bool]]:
    """(index, text, measured, was stored) of each request of `keys` (index -> store key): stored answers
    first, then what `generate` gives for the others, each put into the store as it is there.

    The one loop of every engine with a store. Requests with the same key are generated once; a failed one
    ("error" among what was measured) is not stored, so that it runs again.
    """
    waiting: dict[str, list[int]] = {}
    for i, key in keys.items():
        record = store.get(key) if store is not None else None
        if record is None:
            waiting.setdefault(key, []).append(i)
        else:
            found = {k: v for k, v in record.items() if k not in ("key", "text") and v is not None}
            yield i, record["text"], found, True
    if store is not None and waiting and (n := len(keys) - sum(map(len, waiting.values()))):
        log.info("%d of %d answers taken from %s", n, len(keys), store.path)
    for i, text, found in timed(generate([same[0] for same in waiting.values()])) if waiting else ():
        if store is not None and "error" not in found:
            store.put(keys[i], {"text": text, **found})
        for same in waiting[keys[i]]:
            yield same, text, found, False
            if "timing" in found:  # generated once: the next one with this prompt took no time
                found = {**found, "timing": {**found["timing"], "wall": 0.0}}


def timed(
    stream: Iterable[tuple[int, str, dict[str, Any]]],
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The stream, each answer with the seconds by the clock since the one before it (`timing["wall"]`): they
    add up to the time the engine was busy, however many requests run side by side."""
    source = iter(stream)
    while True:
        since = time.perf_counter()
        try:
            i, text, found = next(source)
        except StopIteration:
            return
        wall = round(time.perf_counter() - since, 4)
        yield i, text, {**found, "timing": {**(found.get("timing") or {}), "wall": wall}}


def answer(
    requests: Sequence[Any],
    store: AnswerStore | None,
    stream: Stream,
    done: Callable[[int, bool], None] = lambda index, stored: None,
) -> list[str]:
    """Answers in request order; a failed request gives "" and its reason in what is recorded with it.

    `done(index, stored)` is called for each request as its answer is there. Measurements are handed to the
    requests at the end, because an engine in between starts each of its batches with empty ones.
    """
    if store is not None:
        store.refresh()
    keys = dict(enumerate(keys_of(requests)))
    answers: dict[int, tuple[str, dict[str, Any]]] = {}
    for i, text, found, stored in through(
        store, keys, lambda order: stream(requests, by_prefix(requests, order))
    ):
        answers[i] = text, found
        done(i, stored)
    session.begin(requests)
    for i, request in enumerate(requests):
        session.record(request, answers[i][1])
    return [answers[i][0] for i in range(len(requests))]


def batches(generate: Callable[[list[Any]], list[str]], size: int) -> Stream:
    """A stream for models that answer in batches: a batch that fails is tried request by request."""

    def stream(requests: Sequence[Any], order: list[int]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        failed_in_a_row = 0
        for start in range(0, len(order), size):
            part = order[start : start + size]
            since = time.perf_counter()
            try:
                texts = generate([requests[i] for i in part])
            except IcrError:
                raise  # a setting this engine refuses: the same for every prompt
            except Exception as error:
                texts = None
                why = redact_text(str(error))
                log.warning("a batch of %d failed (%s); its requests are tried one by one", len(part), why)
            each = {"timing": {"engine": round((time.perf_counter() - since) / len(part), 4)}}
            for place, i in enumerate(part):
                found: dict[str, Any] = {}
                if texts is not None:
                    text = texts[place]
                else:
                    try:
                        text, failed_in_a_row = generate([requests[i]])[0], 0
                    except Exception as error:
                        failed_in_a_row += 1
                        if failed_in_a_row >= _GIVE_UP:
                            raise  # not one bad prompt: the engine is broken
                        text, found = "", {"error": redact_text(f"engine refused: {error}")}
                yield i, text, {**each, **session.found_of(requests[i]), **found}

    return stream
