"""Random access to records of a large JSON-lines file: one pass builds an offset index, then only asked lines
are read."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ..errors import IcrError
from ..storage import cache_root, lenient, remember, write_atomic


def parse(path: Path, line: int, raw: bytes, remedy: str = "; fetch the file again") -> dict[str, Any]:
    """One record, or an IcrError naming file and line (counted from 1)."""
    try:
        record = _loads(raw)
    except ValueError as error:
        raise IcrError(f"{path}:{line}: not valid JSON ({error}){remedy}") from error
    if not isinstance(record, dict):
        raise IcrError(f"{path}:{line}: expected a JSON object, found {type(record).__name__}")
    return record


def _loads(raw: bytes) -> Any:
    """One JSON value. ValueError for anything else."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        if b"\\ud" not in raw.lower():
            raise
        return lenient(
            raw
        )  # half of a surrogate pair, which is no character: nothing after this could encode it


Fields = Mapping[str, type | tuple[type, ...]]
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}


def check(path: Path, line: int, record: Mapping[str, Any], fields: Fields) -> None:
    """IcrError naming file and line where a field of `fields` is missing, null or of another type."""
    for name, types in fields.items():
        types = types if isinstance(types, tuple) else (types,)
        value = record.get(name)
        if value is None:
            what = f"field {name!r} is null" if name in record else f"no field {name!r}"
        elif isinstance(value, types) and (bool in types or not isinstance(value, bool)):
            continue
        else:
            what = f"field {name!r} is not {' or '.join(_WORDS[t] for t in types)}"
        raise IcrError(f"{path}:{line}: {what}; fetch the file again")


def one_of(record: Mapping[str, Any], name: str, known: Iterable[str]) -> str:
    """The text in field `name`, which is one of `known`. ValueError for another."""
    known = tuple(known)
    if record[name] not in known:
        raise ValueError(f"{name} {record[name]!r} is none of {', '.join(known)}")
    return str(record[name])


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, record) of a user's JSON-lines file, plain or .gz; blank lines are skipped. Raises
    IcrError."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield number, parse(path, number, raw, "")
    except (OSError, EOFError, zlib.error) as error:
        raise IcrError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


@dataclass(frozen=True, slots=True)
class Row:
    """Where one record lies, and the few values kept of it."""

    line: int
    start: int
    size: int
    kept: dict[str, Any]


def index(
    path: Path,
    keep: Callable[[dict[str, Any]], dict[str, Any]],
    version: str,
    fields: Fields | None = None,
    source: Path | None = None,
) -> list[Row]:
    """Rows of the file with what `keep` takes from each record; cached by file identity and `version`.

    IcrError naming file and line (of `source`, where the lines were made of it: the number of the record) for
    a record without `fields`, or that `keep` refuses with ValueError.
    Memory: one record at a time while building, the rows afterwards. The file's checksum, which every reader asks
    for next, is taken in the same pass.
    """
    stat = path.stat()
    identity = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{version}"
    cache = cache_root() / "index" / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"
    if cache.is_file():
        try:
            return [Row(*entry) for entry in orjson.loads(cache.read_bytes())]
        except (orjson.JSONDecodeError, TypeError):
            cache.unlink()  # a damaged index is rebuilt below
    rows, digest = [], hashlib.sha256()
    for line, start, size, record in _scan(path, digest):
        check(path, line, record, fields or {})
        try:
            rows.append(Row(line, start, size, keep(record)))
        except ValueError as error:
            where = f"{path}:{line}" if source in (None, path) else f"{source}: record {line}"
            raise IcrError(f"{where}: {error}; fetch the file again") from error
    remember(path, stat, digest.hexdigest())
    write_atomic(cache, orjson.dumps([[r.line, r.start, r.size, r.kept] for r in rows]))
    return rows


def _scan(path: Path, digest: Any) -> Iterator[tuple[int, int, int, dict[str, Any]]]:
    """(line, first byte, bytes, record) of every record; `digest` has seen the whole file at the end."""
    start = 0
    with path.open("rb", buffering=1 << 20) as file:
        for line, raw in enumerate(file, 1):
            digest.update(raw)
            if raw.strip():
                yield line, start, len(raw), parse(path, line, raw)
            start += len(raw)


def read(path: Path, row: Row) -> dict[str, Any]:
    """The record of that row."""
    with path.open("rb") as file:
        file.seek(row.start)
        return parse(path, row.line, file.read(row.size))
