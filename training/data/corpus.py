"""Stage 2: articles -> passages of 100 words, numbered in reading order (Karpukhin et al. 2020, paper section
3)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.errors import IcrError
from icr_tasks.metrics.unspaced import CHARACTER

from . import sources
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
    """Runs of `words` words (characters, in a script without blanks), white space squeezed; a last run below `minimum` words is left out."""
    split = _pieces(text)
    for start in range(0, len(split), words):
        part = split[start : start + words]
        if len(part) >= minimum:
            yield "".join(part).strip()


# A character of a script without blanks with the marks behind it, or a run of others.
_PIECE = re.compile(rf"{CHARACTER.pattern}\W*|(?:(?!{CHARACTER.pattern})\S)+")


def _pieces(text: str) -> list[str]:
    """The words of a text with the blank before them; those of a script without blanks are its characters."""
    if not _unspaced(text):
        return [f" {word}" for word in text.split()]
    out: list[str] = []
    for word in text.split():
        parts = [word] if word.isascii() or not CHARACTER.search(word) else _PIECE.findall(word)
        out += [f" {parts[0]}", *parts[1:]]
    return out


def size(text: str) -> int:
    """Words of a text, as passages count them."""
    return len(_pieces(text) if _unspaced(text) else text.split())


def _unspaced(text: str) -> bool:
    """Whether a text has characters of a script without blanks."""
    return not text.isascii() and CHARACTER.search(text) is not None


def articles(cfg: Config) -> Iterator[tuple[str, str]]:
    """(title, text) of the corpus, and once each of the documents that the questions' own records bring."""
    for path in files(cfg.corpus) if cfg.corpus or not (cfg.records or cfg.musique) else []:
        for record in records(path):
            if "text" not in record:
                raise IcrError(f"{path}: a record has no 'text' (it has {', '.join(sorted(record))})")
            yield record.get("title") or "", record["text"] or ""
    seen: set[int] = set()
    for name in (p.strip() for p in f"{cfg.musique},{cfg.records}".split(",") if p.strip()):
        for number, record in enumerate(records(Path(name)), 1):
            try:
                brought = list(sources.documents(record))
            except IcrError as error:
                raise IcrError(f"{name}, record {number}: {error}") from error
            for title, text in brought:
                if (key := hash(text)) not in seen:
                    seen.add(key)
                    yield title, text


def run(cfg: Config, folder: Path) -> dict[str, Any]:
    """Write passages.parquet; counts articles, passages, full and short ones."""
    counts: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for title, article in articles(cfg):
            counts["articles"] += 1
            before = counts["rows"]
            for text in passages(article, cfg.words, cfg.min_words):
                counts["full"] += size(text) == cfg.words
                counts["rows"] += 1
                shown = f"{title}\n{text}" if cfg.titles and title else text
                yield {"pid": counts["rows"] - 1, "title": title, "text": shown}
            if counts["rows"] == before:
                counts[f"articles without a passage of {cfg.min_words} words"] += 1

    write(folder / OUTPUT, rows(), COLUMNS, batch=10_000, about="corpus")
    if not counts["rows"]:
        raise IcrError(f"the corpus has no passage of at least {cfg.min_words} words")
    return dict(counts)


class Texts:
    """Passages by number, from a memory-mapped copy that is made once beside passages.parquet."""

    _BATCH = 10_000

    def __init__(self, folder: Path) -> None:
        self._source, self._copy = folder / OUTPUT, folder / ".passages-2.arrow"

    @cached_property
    def _batches(self) -> list[Any]:
        pa = arrow()
        if not self._copy.is_file() or self._copy.stat().st_mtime_ns < self._source.stat().st_mtime_ns:
            temporary = self._copy.with_suffix(".tmp")
            form = pa.schema([("text", pa.large_string()), ("title", pa.large_string())])
            with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, form) as out:
                pending: list[dict[str, str]] = []
                for row in read(self._source, ["text", "title"], batch=self._BATCH):
                    pending.append(row)
                    if len(pending) == self._BATCH:
                        out.write_batch(pa.RecordBatch.from_pylist(pending, schema=form))
                        pending = []
                if pending:
                    out.write_batch(pa.RecordBatch.from_pylist(pending, schema=form))
            temporary.replace(self._copy)
        reader = pa.ipc.open_file(pa.memory_map(str(self._copy)))
        return [reader.get_batch(i) for i in range(reader.num_record_batches)]

    def __len__(self) -> int:
        return sum(len(c) for c in self._batches)

    def __getitem__(self, pid: int) -> str:
        return self._batches[pid // self._BATCH].column(0)[pid % self._BATCH].as_py()

    def many(self, pids: list[int] | np.ndarray) -> list[str]:
        """Texts of several passages, in the order given."""
        return [self[int(pid)] for pid in pids]

    def titles(self, pids: list[int] | np.ndarray) -> list[str]:
        """Titles of the articles several passages are from."""
        spots = (divmod(int(pid), self._BATCH) for pid in pids)
        return [self._batches[batch].column(1)[row].as_py() for batch, row in spots]

    def block(self, start: int, stop: int) -> list[str]:
        """Texts of passages start..stop-1."""
        return [self[pid] for pid in range(start, min(stop, len(self)))]
