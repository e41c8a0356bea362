"""Stage 1: HotpotQA (distractor) and 2WikiMultihopQA in their official formats -> questions with gold evidence.

Both have `question`, `answer`, `context` = [[title, [sentence, ...]], ...] and `supporting_facts` = [[title, number]].
The hub's column form ({"title": [...], "sentences": [...]}) and parquet files are read as well.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError
from icr_tasks.metrics.normalize import normalize

from .config import Config
from .store import Record, read, write

OUTPUT = "questions.parquet"
COLUMNS = {
    "id": "str", "dataset": "str", "question": "str", "answers": "strs", "kind": "str",
    "gold_titles": "strs", "gold_texts": "strs",
}  # fmt: skip


def records(path: Path) -> Iterator[Record]:
    """Raw records of a .json, .jsonl or .parquet file (.gz too). IcrError for anything unreadable."""
    if path.suffix == ".parquet":
        yield from read(path)
        return
    if not path.is_file():
        raise IcrError(f"no file {path}")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            start = file.read(1)
            file.seek(0)
            if start == "[":
                yield from json.load(file)
            else:
                yield from (json.loads(line) for line in file if line.strip())
    except (ValueError, OSError, EOFError) as error:
        raise IcrError(f"{path} cannot be read as JSON ({error}); give the official file") from error


def _pairs(value: Any, first: str, second: str) -> list[tuple[str, Any]]:
    """[[a, b], ...] or {"first": [a, ...], "second": [b, ...]} as pairs."""
    if isinstance(value, dict):
        return list(zip(value[first], value[second], strict=True))
    return [(a, b) for a, b in value]


def gold(record: Record, unit: str) -> list[tuple[str, str]]:
    """(title, text) of the evidence, in order of the supporting facts, each once; [] when a fact cannot be found.

    `passage`: whole paragraphs. `sentence`: single supporting sentences, as the released code has it.
    """
    context = {title: sentences for title, sentences in _pairs(record["context"], "title", "sentences")}
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for title, number in _pairs(record["supporting_facts"], "title", "sent_id"):
        sentences = context.get(title)
        if sentences is None:
            return []
        if unit == "passage":
            found[title, 0] = (title, " ".join(" ".join(sentences).split()))
        elif 0 <= int(number) < len(sentences):  # some official facts point past the end of their paragraph
            found[title, int(number)] = (title, " ".join(sentences[int(number)].split()))
    return [(title, text) for title, text in found.values() if text]


def _one(record: Record, dataset: str, unit: str) -> tuple[Record | None, str]:
    """(row, "kept"), or (None, why not)."""
    try:
        name = str(record.get("_id") or record["id"])
        question, answer = record["question"].strip(), record["answer"]
        evidence = gold(record, unit)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IcrError(
            f"a {dataset} record lacks {error} (has {', '.join(sorted(record))}); give the official file"
        ) from error
    if not answer or not answer.strip():
        return None, "dropped: no answer"
    if not evidence:
        return None, "dropped: no gold in its context"
    titles, texts = [t for t, _ in evidence], [t for _, t in evidence]
    row = {"id": f"{dataset}-{name}", "dataset": dataset, "question": question, "answers": [answer.strip()]}
    return row | {"kind": record.get("type") or "", "gold_titles": titles, "gold_texts": texts}, "kept"


def run(cfg: Config, folder: Path) -> dict[str, Any]:
    """Write questions.parquet; counts a data set and a reason."""
    counts: Counter[str] = Counter()
    held = {normalize(str(r["question"])) for r in records(Path(cfg.exclude))} if cfg.exclude else set()
    parts: list[list[Record]] = []
    for dataset, path in (("hotpotqa", cfg.hotpotqa), ("2wiki", cfg.twowiki)):
        if not path:
            continue
        part, seen = [], set()
        for record in records(Path(path)):
            row, outcome = _one(record, dataset, cfg.gold)
            if row is not None and row["id"] in seen:
                row, outcome = None, "dropped: duplicate id"
            elif row is not None and normalize(row["question"]) in held:
                row, outcome = None, "dropped: excluded question"
            counts[f"{dataset} {outcome}"] += 1
            if row is not None:
                seen.add(row["id"])
                part.append(row)
        if not part:
            raise IcrError(f"{path}: no usable record ({dict(counts)})")
        part.sort(key=lambda r: hashlib.sha256(f"{cfg.seed}/{r['id']}".encode()).digest())
        parts.append(part[: cfg.per_dataset] if cfg.per_dataset else part)
    if not parts:
        raise IcrError("nothing to read: give --hotpotqa FILE and/or --2wiki FILE (or --synth N)")
    rows = [row for part in parts for row in part]
    if cfg.mix:
        random.Random(cfg.seed).shuffle(rows)
    counts["rows"] = write(folder / OUTPUT, rows, COLUMNS)
    return dict(counts)
