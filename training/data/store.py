"""Parquet files between stages and the manifest that says how each came about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from icr_tasks import storage
from icr_tasks.errors import IcrError, install_hint
from icr_tasks.storage import write_atomic

Record = dict[str, Any]
# Columns of the final rows (train.parquet, dev.parquet). `passages` are texts in prompt order: passage i is
# [DOC i].
ROW = {
    "id": "str",
    "dataset": "str",
    "domain": "str",
    "question": "str",
    "answers": "strs",
    "passages": "strs",
    "gold_ids": "ints",
    "gold_docs": "strs",
    "original_ids": "ints",
    "n_tokens": "int",
    "n_dropped": "int",
}


def arrow() -> ModuleType:
    """pyarrow with its parquet module, or the IcrError that says how to get it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise IcrError(f"training data are parquet files: {install_hint('train')}") from error
    return pyarrow


def schema(columns: Mapping[str, str]) -> Any:
    """pyarrow schema from name -> str, int, float, and their plurals for lists."""
    pa = arrow()
    plain = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    kinds = plain | {f"{name}s": pa.list_(kind) for name, kind in plain.items()}
    return pa.schema([(name, kinds[kind]) for name, kind in columns.items()])


def count(path: Path) -> int:
    """Number of records of a parquet file."""
    return arrow().parquet.ParquetFile(path).metadata.num_rows


def columns(path: Path) -> list[str]:
    """Names of a parquet file's columns. IcrError when it is damaged."""
    pa = arrow()
    try:
        return list(pa.parquet.ParquetFile(path).schema_arrow.names)
    except pa.ArrowInvalid as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> IcrError:
    return IcrError(f"{path} is not a readable parquet file ({error}); delete it and run the stage again")


def write(
    path: Path,
    records: Iterable[Record],
    columns: Mapping[str, str],
    batch: int = 512,
    about: str = "",
    total: int | None = None,
) -> int:
    """Write records in batches; the file appears only when complete. Returns the number of records.

    `about` names a stage whose progress is shown, with the time left where `total` is known.
    """
    pa = arrow()
    done = 0
    pending: list[Any] = []
    form = schema(columns)
    with (
        storage.replacing(path) as temporary,
        pa.parquet.ParquetWriter(temporary, form, compression="zstd") as out,
    ):

        def flush() -> None:
            if pending:
                out.write_table(pa.Table.from_pylist(pending, schema=form))
                pending.clear()

        for record in tqdm(records, desc=about, total=total, unit=" rows", disable=not about, delay=2):
            pending.append({name: record.get(name) for name in columns})
            done += 1
            if len(pending) == batch:
                flush()
        flush()
    return done


def read(path: Path, columns: Sequence[str] | None = None, batch: int = 256) -> Iterator[Record]:
    """Records of a parquet file, a batch in memory at a time. IcrError when it is missing or damaged."""
    pa = arrow()
    if not path.is_file():
        raise IcrError(f"no file {path}; run the stage that makes it (icr train data --help lists them)")
    try:
        for part in pa.parquet.ParquetFile(path).iter_batches(
            batch, columns=list(columns) if columns else None
        ):
            yield from part.to_pylist()
    except pa.ArrowInvalid as error:
        raise _damaged(path, error) from error


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return storage.sha256(file)


def key_of(value: Any) -> str:
    """16 hex digits that name a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a data folder for this process; IcrError when another one is at work in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with storage.lock(folder / ".lock", wait=False) as free:
        if not free:
            raise IcrError(
                f"another `icr train data` is at work in {folder}; wait for it, or choose another -o"
            )
        yield


def elsewhere(out: Path, data: Path) -> None:
    """IcrError when what is written from a data folder would overwrite its own rows."""
    if out.resolve() == data.resolve():
        raise IcrError(
            f"-o {out} is the data folder itself, whose train.parquet would be overwritten; name another"
        )


@dataclass
class Manifest:
    """`manifest.json` of a data folder: per stage its key, options, counts and the hashes of what it
    wrote."""

    folder: Path
    stages: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """The folder's manifest, empty when there is none yet."""
        path = folder / "manifest.json"
        if not path.is_file():
            return cls(folder)
        try:
            return cls(folder, json.loads(path.read_text())["stages"])
        except (ValueError, KeyError, TypeError) as error:
            raise IcrError(f"{path} cannot be read ({error}); move it away and start again") from error

    def fresh(self, stage: str, key: str) -> bool:
        """Whether the stage ran with this key and its files are still as they were written (by size)."""
        entry = self.stages.get(stage)
        if entry is None or entry["key"] != key:
            return False
        return all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size == file["bytes"]
            for name, file in entry["files"].items()
        )

    def wrote(self, path: Path) -> bool:
        """Whether the file is one of the folder's own, as it was written (by size)."""
        noted = [entry["files"][path.name] for entry in self.stages.values() if path.name in entry["files"]]
        return bool(noted) and path.stat().st_size == noted[-1]["bytes"]

    def record(self, stage: str, key: str, files: Mapping[str, int], **details: Any) -> Record:
        """Note a finished stage; `files` maps file names to their number of records. Returns the entry."""
        noted = {
            name: {
                "rows": n,
                "bytes": (self.folder / name).stat().st_size,
                "sha256": sha256(self.folder / name),
            }
            for name, n in files.items()
        }
        self.stages[stage] = {"key": key, "files": noted, **details}
        body = {"schema": 1, "hash": self.hash(), "stages": self.stages}
        write_atomic(self.folder / "manifest.json", json.dumps(body, indent=1).encode())
        return self.stages[stage]

    def hash(self) -> str:
        """Names the training rows: the hash of the final files' hashes. What a model card records."""
        final = {
            name: file["sha256"]
            for entry in self.stages.values()
            for name, file in entry["files"].items()
            if name in ("train.parquet", "dev.parquet")
        }
        return key_of(final)
