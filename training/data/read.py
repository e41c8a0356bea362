"""Stage 1: HotpotQA (distractor) and 2WikiMultihopQA in their official formats -> questions with gold
evidence.

Both have `question`, `answer`, `context` = [[title, [sentence, ...]], ...] and `supporting_facts` = [[title,
number]]. The hub's column form ({"title": [...], "sentences": [...]}) and parquet files are read as well.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError
from icr_tasks.metrics.answers import normalize

from .config import Config
from .store import Record, read, write

OUTPUT = "questions.parquet"
COLUMNS = {
    "id": "str",
    "dataset": "str",
    "question": "str",
    "answers": "strs",
    "kind": "str",
    "gold_titles": "strs",
    "gold_texts": "strs",
}


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


def gold(record: Record, unit: str, size: int = 100) -> list[tuple[str, str]]:
    """(title, text) of the evidence, in order of the supporting facts; [] when a fact's paragraph is not
    there.

    `passage`: as much of the paragraph as a passage of the corpus holds (`size` words) around its supporting sentences,
    so that length does not give gold away. `paragraph`: all of it. `sentence`: single supporting sentences,
    as in the released code. A fact that points past the end of its paragraph, as some official ones do, is
    left out.
    """
    context = {title: sentences for title, sentences in _pairs(record["context"], "title", "sentences")}
    facts: dict[str, list[int]] = {}
    for title, number in _pairs(record["supporting_facts"], "title", "sent_id"):
        if title not in context:
            return []
        if 0 <= int(number) < len(context[title]):
            facts.setdefault(title, []).append(int(number))
    found: list[tuple[str, str]] = []
    for title, numbers in facts.items():
        sentences = [s.split() for s in context[title]]
        if unit == "sentence":
            found += [(title, " ".join(sentences[n])) for n in sorted(set(numbers))]
        else:
            width = size if unit == "passage" else sum(map(len, sentences))
            found += [(title, text) for text in windows(sentences, numbers, width)]
    return [(title, text) for title, text in found if text]


def windows(sentences: list[list[str]], numbers: list[int], size: int) -> list[str]:
    """Runs of at most `size` words of a paragraph that together hold the numbered sentences, as few as
    possible."""
    words = [word for sentence in sentences for word in sentence]
    ends = list(accumulate((len(s) for s in sentences), initial=0))
    out: list[str] = []
    todo = sorted(set(numbers))
    while todo:
        first = ends[todo[0]]
        held = [n for n in todo if ends[n + 1] - first <= size] or todo[:1]
        spare = max(0, size - (ends[held[-1] + 1] - first))
        start = max(0, min(first - spare // 2, len(words) - size))
        out.append(" ".join(words[start : start + size]))
        todo = [n for n in todo if n not in held]
    return out


def _one(record: Record, dataset: str, unit: str, size: int) -> tuple[Record | None, str]:
    """(row, "kept"), or (None, why not)."""
    try:
        name = str(record.get("_id") or record["id"])
        question, answer = record["question"].strip(), record["answer"]
        evidence = gold(record, unit, size)
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
            row, outcome = _one(record, dataset, cfg.gold, cfg.words)
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
