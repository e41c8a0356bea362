"""Baselines: runs pinned by fingerprint and content in a file that is committed, moved only on purpose.

`<baselines>/<name>.json` holds one pin a (setting, prompt) with its first baseline and its history. The first
one stays: ten passes of one point each would otherwise slide through.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from icr_tasks.errors import IcrError, unknown
from icr_tasks.storage import write_atomic, writing

from ..ledgers.ledger import content, run_files
from ..ledgers.load import Run, load_run, read_head

SCHEMA = 1
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


@dataclass
class Pin:
    """One pinned run; `first` and each `history` entry: fingerprint, model, items_sha256, set, verdict,
    why."""

    setting: str
    prompt: str
    fingerprint: str
    model: str
    items_sha256: str
    set: str
    first: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)  # candidates judged against it with --record


def path_of(folder: Path, name: str) -> Path:
    """The file of a baseline. Raises IcrError for names that are not plain words."""
    if not re.fullmatch(_NAME, name):
        raise IcrError(f"{name!r} cannot name a baseline; use letters, digits, dot, dash and underscore")
    return folder / f"{name}.json"


def is_set(folder: Path, name: str) -> bool:
    """Whether a baseline of this name is there; a name that cannot be one is a run's or a folder's."""
    return bool(re.fullmatch(_NAME, name)) and path_of(folder, name).is_file()


def read(folder: Path, name: str) -> list[Pin]:
    """All pins of a baseline. Raises IcrError for unknown names and unreadable files."""
    path = path_of(folder, name)
    if not path.is_file():
        raise unknown("baseline", name, [p.stem for p in folder.glob("*.json")])
    try:
        stored = orjson.loads(path.read_bytes())
        if stored["schema"] != SCHEMA:
            raise IcrError(f"{path}: schema {stored['schema']!r}, this version reads {SCHEMA}")
        pins = [Pin(**pin) for pin in stored["pins"]]
        _whole(pins)
        return pins
    except (ValueError, KeyError, TypeError) as error:
        raise IcrError(f"{path}: not a baseline file ({error}); restore it from version control") from error


def _whole(pins: list[Pin]) -> None:
    """Raises TypeError for pins that the gate cannot judge with: an edited file, or two versions of it merged."""
    for pin in pins:
        if not all(
            isinstance(value, str) for value in (pin.setting, pin.prompt, pin.fingerprint, pin.items_sha256)
        ):
            raise TypeError("a pin without setting, prompt, fingerprint or items_sha256")
        said = f"{pin.setting} ({pin.prompt})"
        if not (_entries([pin.first], "fingerprint", "items_sha256")):
            raise TypeError(f"the first baseline of {said} has no fingerprint or items_sha256")
        if not pin.history or not _entries(pin.history):
            raise TypeError(f"{said} has no history")
        if not _entries(pin.looks, "items_sha256"):
            raise TypeError(f"a look of {said} has no items_sha256")
    twice = [f"{p.setting} ({p.prompt})" for n, p in enumerate(pins) if any(_same(p, o) for o in pins[:n])]
    if twice:
        raise TypeError(f"{twice[0]} is pinned twice")


def _entries(listed: Any, *needed: str) -> bool:
    """Whether these are entries of a baseline file, each with texts under these names."""
    return isinstance(listed, list) and all(
        isinstance(one, dict) and all(isinstance(one.get(name), str) for name in needed) for one in listed
    )


def _same(one: Pin, other: Pin) -> bool:
    return (one.setting, one.prompt) == (other.setting, other.prompt)


def pinned(folder: Path, name: str, run: Run) -> Pin:
    """The pin for this run's setting and prompt. Raises IcrError (exit code 4) when there is none."""
    pins = read(folder, name)
    for pin in pins:
        if (pin.setting, pin.prompt) == (run.setting, run.prompt):
            return pin
    known = "; ".join(f"{p.setting} ({p.prompt})" for p in pins)
    text = f"baseline {name} has no run for {run.setting} ({run.prompt}), only {known}; `icr baseline set {name} RUN`"
    raise IcrError(text, exit_code=4)


def resolve(results: Path, pin: dict[str, Any], name: str) -> Run:
    """The pinned ledger, unchanged. Raises IcrError (exit code 4) when it is gone or was replaced."""
    fingerprint = pin["fingerprint"]
    heads = [(p.parent, read_head(p)) for p in run_files(results) if p.parent.name == fingerprint]
    if not heads:
        text = (
            f"baseline {name} pins run {fingerprint}, which is not below {results}; name the folder that holds it "
            "with --results, or restore it there"
        )
        raise IcrError(text, exit_code=4)
    for folder, head in heads:
        if content(folder) == pin["items_sha256"]:
            return load_run(folder, head)
    text = f"{heads[0][0]} is no longer the run that baseline {name} pins (its items changed); restore it or set it again"
    raise IcrError(text, exit_code=4)


def store(folder: Path, name: str, run: Run, *, verdict: str, why: str | None) -> Pin:
    """Pin a run, keeping the first one and the history of its setting and prompt."""
    path = path_of(folder, name)
    pins = read(folder, name) if path.is_file() else []
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry = {
        "fingerprint": run.fingerprint,
        "model": run.model,
        "items_sha256": content(run.folder),
        "set": stamp,
    }
    old = next((p for p in pins if (p.setting, p.prompt) == (run.setting, run.prompt)), None)
    logged = {**entry, "verdict": verdict, "why": why}
    first = old.first if old else entry
    new = Pin(run.setting, run.prompt, **entry, first=first)  # type: ignore[arg-type]  # history follows
    new.history = [*(old.history if old else []), logged]
    _save(folder, name, [*(p for p in pins if p is not old), new])
    return new


def look_of(pin: Pin, run: Run) -> int:
    """The number of a candidate's look: the one it had, else the next. The same items again are no new
    look."""
    own = content(run.folder)
    for number, look in enumerate(pin.looks, 1):
        if look["items_sha256"] == own:
            return number
    return len(pin.looks) + 1


def record(folder: Path, name: str, run: Run, verdict: str) -> int:
    """Count a candidate's look in the baseline file; returns its number."""
    pins = read(folder, name)
    pin = next(p for p in pins if (p.setting, p.prompt) == (run.setting, run.prompt))
    number = look_of(pin, run)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry = {
        "fingerprint": run.fingerprint,
        "model": run.model,
        "items_sha256": content(run.folder),
        "judged": stamp,
        "verdict": verdict,
    }
    pin.looks[number - 1 : number] = [entry]
    _save(folder, name, pins)
    return number


def _save(folder: Path, name: str, pins: list[Pin]) -> None:
    path = path_of(folder, name)
    kept = sorted(pins, key=lambda p: (p.setting, p.prompt))
    body = {"schema": SCHEMA, "name": name, "pins": [asdict(p) for p in kept]}
    with writing(path, "nothing was changed"):
        write_atomic(path, orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
