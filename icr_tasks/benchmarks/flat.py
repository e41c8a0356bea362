"""Official files of any shape as one record a line in the cache: a JSON list, parquet, CSV.

A record can then be read alone (`lines.read`), and the reader of a benchmark is the same for all shapes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ..errors import IcrError
from ..storage import cache_root, data_root, fingerprint, replacing, require
from . import lines

_ROWS = 16  # of a parquet file at a time: a row may hold megabytes of text


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one official file: `path` has one a line, `rows` where each lies and what was kept."""

    source: Path
    path: Path
    sha256: str
    rows: list[lines.Row]

    def read(self, row: lines.Row) -> dict[str, Any]:
        """The whole record."""
        return lines.read(self.path, row)


def load(
    target: str,
    benchmark: str,
    fields: lines.Fields,
    keep: Callable[[dict[str, Any]], dict[str, Any]],
    version: str,
) -> Records:
    """Records of the file `target` below the data folder, which `icr data fetch BENCHMARK` brings.

    `fields` are checked in every record; `keep` takes what an item needs at once. Raises IcrError naming file
    and record for a missing file, another shape, or a field that is missing or of another type.
    """
    source = require(data_root() / target, benchmark)
    sha = fingerprint(source)
    path = source if source.suffix == ".jsonl" else _flat(source, sha, fields)
    return Records(source, path, sha, lines.index(path, keep, version, fields, source))


def other(found: Iterable[Records], pinned: Iterable[str], revision: str) -> tuple[str, ...]:
    """A note for each file that is not one of the pinned revision, by its sha256; such items are not
    official."""
    known = set(pinned)
    return tuple(
        f"{f.source.name} (sha256 {f.sha256[:12]}…) is not that of revision {revision[:8]}"
        for f in found
        if f.sha256 not in known
    )


def _flat(source: Path, sha: str, fields: lines.Fields) -> Path:
    flat = cache_root() / "flat" / f"{source.stem}-{sha[:16]}.jsonl"
    if flat.is_file():
        return flat
    reader = _READERS.get(source.suffix)
    if reader is None:
        raise IcrError(f"{source}: no reader for {source.suffix!r}; known: .jsonl, {', '.join(_READERS)}")
    with replacing(flat) as part, part.open("wb") as file:
        for number, record in enumerate(reader(source), 1):
            if not isinstance(record, dict):
                raise IcrError(f"{source}: record {number} is not an object; fetch the file again")
            lines.check(source, number, record, fields)
            file.write(orjson.dumps(record) + b"\n")
    return flat


def _json(source: Path) -> Iterator[Any]:
    try:
        found = orjson.loads(source.read_bytes())
    except orjson.JSONDecodeError as error:
        raise IcrError(f"{source}: not valid JSON ({error}); fetch the file again") from error
    if not isinstance(found, list):
        raise IcrError(f"{source}: expected one list of records; fetch the file again")
    yield from found


def _parquet(source: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(source) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        said = str(error).splitlines()[0]
        raise IcrError(f"{source}: not a parquet file ({said}); fetch the file again") from error


def _csv(source: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(1 << 30)
    try:
        text = source.read_text(encoding="utf-8-sig")
        yield from csv.DictReader(io.StringIO(text, newline=""), strict=True)
    except (UnicodeDecodeError, csv.Error) as error:
        raise IcrError(f"{source}: not a CSV file in UTF-8 ({error}); fetch the file again") from error


_READERS: dict[str, Callable[[Path], Iterator[Any]]] = {".json": _json, ".parquet": _parquet, ".csv": _csv}
