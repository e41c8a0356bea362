"""Stage 2: articles -> passages of 100 words, numbered in reading order (Karpukhin et al. 2020, paper section
3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.errors import IcrError

from .config import Config
from .read import records
from .store import arrow, read, write

OUTPUT = "passages.parquet"
COLUMNS = {"pid": "int", "title": "str", "text": "str"}


def files(paths: str) -> list[Path]:
    """Files named by a comma-separated list of files and folders."""
    found: list[Path] = []
    for name in (p.strip() for p in paths.split(",") if p.strip()):
        path = Path(name)
        if path.is_dir():
            found += sorted(
                p for p in path.rglob("*") if p.name.endswith((".parquet", ".jsonl", ".jsonl.gz"))
            )
        elif path.is_file():
            found.append(path)
        else:
            raise IcrError(f"no corpus file {path}")
    if not found:
        raise IcrError(
            "no corpus: give --corpus FILE[,FILE...] (parquet or jsonl with columns title and text)"
        )
    return found


def passages(text: str, words: int, minimum: int) -> Iterator[str]:
    """Runs of `words` words, white space squeezed; a last run below `minimum` words is left out."""
    split = text.split()
    for start in range(0, len(split), words):
        part = split[start : start + words]
        if len(part) >= minimum:
            yield " ".join(part)


def run(cfg: Config, folder: Path) -> dict[str, Any]:
    """Write passages.parquet; counts articles, passages, full and short ones."""
    counts: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for path in files(cfg.corpus):
            for record in records(path):
                if "text" not in record:
                    raise IcrError(f"{path}: a record has no 'text' (it has {', '.join(sorted(record))})")
                counts["articles"] += 1
                for text in passages(record["text"] or "", cfg.words, cfg.min_words):
                    counts["full"] += len(text.split()) == cfg.words
                    counts["rows"] += 1
                    yield {"pid": counts["rows"] - 1, "title": record.get("title") or "", "text": text}

    write(folder / OUTPUT, rows(), COLUMNS, batch=10_000)
    if not counts["rows"]:
        raise IcrError(f"the corpus has no passage of at least {cfg.min_words} words")
    return dict(counts)


class Texts:
    """Passages by number, from a memory-mapped copy that is made once beside passages.parquet."""

    _BATCH = 10_000

    def __init__(self, folder: Path) -> None:
        self._source, self._copy = folder / OUTPUT, folder / ".passages.arrow"

    @cached_property
    def _columns(self) -> list[Any]:
        pa = arrow()
        if not self._copy.is_file() or self._copy.stat().st_mtime_ns < self._source.stat().st_mtime_ns:
            temporary = self._copy.with_suffix(".tmp")
            form = pa.schema([("text", pa.large_string())])
            with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, form) as out:
                pending: list[str] = []
                for row in read(self._source, ["text"], batch=self._BATCH):
                    pending.append(row["text"])
                    if len(pending) == self._BATCH:
                        out.write_batch(pa.record_batch([pa.array(pending, pa.large_string())], schema=form))
                        pending = []
                if pending:
                    out.write_batch(pa.record_batch([pa.array(pending, pa.large_string())], schema=form))
            temporary.replace(self._copy)
        reader = pa.ipc.open_file(pa.memory_map(str(self._copy)))
        return [reader.get_batch(i).column(0) for i in range(reader.num_record_batches)]

    def __len__(self) -> int:
        return sum(len(c) for c in self._columns)

    def __getitem__(self, pid: int) -> str:
        return self._columns[pid // self._BATCH][pid % self._BATCH].as_py()

    def many(self, pids: list[int] | np.ndarray) -> list[str]:
        """Texts of several passages, in the order given."""
        return [self[int(pid)] for pid in pids]

    def block(self, start: int, stop: int) -> list[str]:
        """Texts of passages start..stop-1."""
        return [self[pid] for pid in range(start, min(stop, len(self)))]
