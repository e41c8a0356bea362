"""The results contract: `<results>/<model>/<setting>/<fingerprint>/run.json + items.jsonl.gz`, schema 1.

Files are written beside their place and renamed, run.json last: where run.json exists the run is whole.
"""

from __future__ import annotations

import gc
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import orjson

from icr_tasks.errors import IcrError
from icr_tasks.schema import SCHEMA as SCHEMA
from icr_tasks.schema import fingerprint as fingerprint
from icr_tasks.schema import read_head
from icr_tasks.settings import parse_tokens
from icr_tasks.storage import files_below, replacing_folder, sha256, writing

ITEMS = "items.jsonl.gz"
T = TypeVar("T")


def slug(text: str) -> str:
    """A folder name for a model or setting: no separators, no leading dot, readable."""
    return re.sub(r"[^A-Za-z0-9._@=+-]+", "_", text).strip("._")[:120] or "unnamed"


def place(root: Path, run: dict[str, Any]) -> Path:
    """The folder of a run below `root`."""
    return root / slug(run["model"]["id"]) / slug(run["setting"]["text"]) / run["fingerprint"]


def content(folder: Path) -> str:
    """sha256 of a run's uncompressed item rows: changes when the run was made again with other answers."""
    try:
        with gzip.open(folder / ITEMS, "rb") as file:
            return sha256(cast(IO[bytes], file))
    except (OSError, EOFError, zlib.error) as error:
        raise IcrError(f"{folder / ITEMS}: unreadable ({error}); collect the run again") from error


def write(
    root: Path,
    run: dict[str, Any],
    items: Iterable[dict[str, Any]],
    guard: Callable[[Path], None] | None = None,
) -> Path:
    """Write one run; an older version of the same run is replaced as a whole. Returns its folder.

    `run` is written after `items` was consumed, so a generator of items may still fill in its counts. `guard`
    sees the new folder before the old one goes, and may refuse by raising IcrError.
    """
    folder = place(root, run)
    with writing(folder, "nothing was changed there"), replacing_folder(folder) as building:
        # mtime=0: the same items give the same bytes
        with (building / ITEMS).open("wb") as raw, gzip.GzipFile("", "wb", 2, raw, mtime=0) as file:
            for lines in batched(map(orjson.dumps, items), 500):  # one compressor call for many small rows
                file.write(b"\n".join(lines) + b"\n")
        (building / "run.json").write_bytes(
            orjson.dumps(run, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        )
        if guard:
            guard(building)
    return folder


@contextmanager
def no_cycles() -> Iterator[None]:
    """Pause Python's cycle collector: it would walk millions of short-lived rows again and again and find
    nothing."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` values (itertools has it from Python 3.12)."""
    source = iter(values)
    while part := list(islice(source, size)):
        yield part


def runs(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every whole run below `root`. Raises IcrError naming a run.json that is not one of ours."""
    return ((path.parent, read_head(path)) for path in run_files(root))


def run_files(root: Path) -> list[Path]:
    """Every run.json at or below `root`, sorted; through symbolic links too. Folders that start with a dot are being
    written."""
    return sorted(path for path in files_below(root, hidden=False) if path.name == "run.json")


def length_fault(name: str, sheet: dict[str, Any]) -> str | None:
    """What is wrong with the nominal length in a task's entry of run.json; None where nothing is."""
    length = sheet.get("length")
    try:
        if not length or isinstance(length, str) and parse_tokens(length):
            return None
    except IcrError:
        pass  # said below, with the task
    return f"{name} has length {str(length)[:40]!r}, which is no number of tokens (512, 4k, 1M); collect the run again"


def rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, row) of one ledger, streamed. Raises IcrError with file and line where it is damaged."""
    number = 0
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                number += 1
                yield number, orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise IcrError(f"{path}:{number}: not valid JSON ({error}); collect the run again") from error
    except (OSError, EOFError, zlib.error) as error:
        raise IcrError(f"{path}: unreadable after line {number} ({error}); collect the run again") from error


def items(folder: Path) -> Iterator[dict[str, Any]]:
    """The ledger rows of one run, streamed."""
    return (row for _, row in rows(folder / ITEMS))
