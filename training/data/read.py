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
from typing import Any, TextIO

from tqdm import tqdm

from icr_tasks.errors import IcrError
from icr_tasks.metrics.answers import normalize

from . import sources
from .config import Config
from .store import Record, read, write

_UNSAID = ("yes", "no")  # answers no passage spells out
OUTPUT = "questions.parquet"
COLUMNS = {
    "id": "str",
    "dataset": "str",
    "domain": "str",
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
            place = "record" if start == "[" else "line"
            for number, record in enumerate(json.load(file) if start == "[" else _lines(file), 1):
                if record is not None and not isinstance(record, dict):
                    raise IcrError(f"{path}, {place} {number} is no record (an object of names and values)")
                if record is not None:
                    yield record
    except (ValueError, OSError, EOFError) as error:
        raise IcrError(
            f"{path} cannot be read as JSON ({error}): one list of records, or one a line"
        ) from error


def _lines(file: TextIO) -> Iterator[Any]:
    """A value a line, None for an empty one. ValueError that names the line."""
    for number, line in enumerate(file, 1):
        try:
            yield json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: {error.msg}") from error


def _pairs(value: Any, first: str, second: str) -> list[tuple[str, Any]]:
    """[[a, b], ...] or {"first": [a, ...], "second": [b, ...]} as pairs."""
    if isinstance(value, dict):
        return list(zip(value[first], value[second], strict=True))
    return [(a, b) for a, b in value]


def facts(record: Record) -> tuple[dict[str, list[int]], list[str]]:
    """(title -> numbers of its supporting sentences, titles whose facts all point past their paragraph's
    end).

    Such a title gets its first sentence: without it a hop of the question would have no evidence. Empty when
    a fact's paragraph is not there at all.
    """
    context = {title: sentences for title, sentences in _pairs(record["context"], "title", "sentences")}
    found: dict[str, list[int]] = {}
    for title, number in _pairs(record["supporting_facts"], "title", "sent_id"):
        if title not in context:
            return {}, []
        found.setdefault(title, [])
        if 0 <= int(number) < len(context[title]):
            found[title].append(int(number))
    lost = [
        title for title, numbers in found.items() if not numbers and any(s.strip() for s in context[title])
    ]
    return {title: numbers or [0] for title, numbers in found.items() if numbers or title in lost}, lost


def gold(record: Record, unit: str, size: int = 100, sentences: bool = False) -> list[tuple[str, str]]:
    """(title, text) of the evidence, in order of the supporting facts; [] when a fact's paragraph is not
    there.

    `passage`: as much of the paragraph as a passage of the corpus holds (`size` words) around its supporting
    sentences, so that length does not give gold away. `paragraph`: all of it. `sentence`: single supporting
    sentences, as in the released code. `sentences`: windows begin and end with whole sentences.
    """
    context = {title: text for title, text in _pairs(record["context"], "title", "sentences")}
    found: list[tuple[str, str]] = []
    for title, numbers in facts(record)[0].items():
        said = [s.split() for s in context[title]]
        if unit == "sentence":
            found += [(title, " ".join(said[n])) for n in sorted(set(numbers))]
        else:
            width = size if unit == "passage" else sum(map(len, said))
            cut = whole if sentences else windows
            found += [(title, text) for text in cut(said, numbers, width)]
    return [(title, text) for title, text in found if text]


def whole(sentences: list[list[str]], numbers: list[int], size: int) -> list[str]:
    """As `windows`, of whole sentences: as many before and after the numbered ones as `size` words hold."""
    out: list[str] = []
    todo = sorted(set(numbers))
    while todo:
        low = high = todo[0]
        for n in todo[1:]:
            if sum(map(len, sentences[low : n + 1])) <= size:
                high = n
        room = size - sum(map(len, sentences[low : high + 1]))
        grown = True
        while grown:
            grown = False
            for at in (high + 1, low - 1):
                if 0 <= at < len(sentences) and len(sentences[at]) <= room:
                    low, high, room, grown = min(low, at), max(high, at), room - len(sentences[at]), True
        out.append(" ".join(word for sentence in sentences[low : high + 1] for word in sentence))
        todo = [n for n in todo if not low <= n <= high]
    return out


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


def _one(record: Record, dataset: str, cfg: Config, counts: Counter[str]) -> tuple[Record | None, str]:
    """(row, "kept"), or (None, why not)."""
    if dataset in ("musique", "records"):
        try:
            return sources.musique(record) if dataset == "musique" else sources.plain(record)
        except (KeyError, TypeError) as error:
            raise IcrError(
                f"a {dataset} record lacks {error} (has {', '.join(sorted(record))}); give the official file"
            ) from error
    try:
        name = str(record.get("_id") or record["id"])
        question, answer = record["question"].strip(), record["answer"]
        evidence = gold(record, cfg.gold, cfg.words, cfg.sentences)
        lost = facts(record)[1]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IcrError(
            f"a {dataset} record lacks {error} (has {', '.join(sorted(record))}); give the official file"
        ) from error
    if not answer or not answer.strip():
        return None, "dropped: no answer"
    if not evidence:
        return None, "dropped: no gold in its context"
    if lost:
        counts[f"{dataset} rows with a fact past its paragraph: the paragraph's beginning is gold"] += 1
    titles, texts = [t for t, _ in evidence], [t for _, t in evidence]
    row = {"id": f"{dataset}-{name}", "dataset": dataset, "question": question, "answers": [answer.strip()]}
    row["domain"] = "wikipedia"
    return row | {"kind": record.get("type") or "", "gold_titles": titles, "gold_texts": texts}, "kept"


def run(cfg: Config, folder: Path) -> dict[str, Any]:
    """Write questions.parquet; counts a data set and a reason."""
    counts: Counter[str] = Counter()
    held = {normalize(str(r["question"])) for r in records(Path(cfg.exclude))} if cfg.exclude else set()
    parts: list[list[Record]] = []
    seen: dict[str, str] = {}
    given = [("hotpotqa", cfg.hotpotqa), ("2wiki", cfg.twowiki), ("musique", cfg.musique)]
    for dataset, path in [*given, *(("records", p.strip()) for p in cfg.records.split(","))]:
        if not path:
            continue
        part: list[Record] = []
        for number, record in enumerate(
            tqdm(records(Path(path)), desc=f"read {dataset}", unit=" records", delay=2), 1
        ):
            try:
                row, outcome = _one(record, dataset, cfg, counts)
            except IcrError as error:
                raise IcrError(f"{path}, record {number}: {error}") from error
            if row is not None and seen.get(row["id"], row["question"]) != row["question"]:
                # two files that number their rows from 1: dropping would take a whole domain away
                row["id"] += f"-{hashlib.sha256(row['question'].encode()).hexdigest()[:12]}"
                counts[f"{dataset} given another id: theirs is that of another question"] += 1
            if row is not None and row["id"] in seen:
                row, outcome = None, "dropped: duplicate id"
            elif row is not None and normalize(row["question"]) in held:
                row, outcome = None, "dropped: excluded question"
            counts[f"{dataset} {outcome}"] += 1
            if row is not None:
                seen[row["id"]] = row["question"]
                if cfg.titles:
                    row["gold_texts"] = [
                        f"{t}\n{x}" if t else x
                        for t, x in zip(row["gold_titles"], row["gold_texts"], strict=True)
                    ]
                text = " ".join(map(normalize, row["gold_texts"]))
                told = any(normalize(a) in (*_UNSAID, "") or normalize(a) in text for a in row["answers"])
                if dataset in ("musique", "records") and not told:
                    counts[f"{dataset} rows whose evidence does not hold the answer"] += 1
                part.append(row)
        if not part:
            why = ", ".join(f"{n:,} {reason}" for reason, n in counts.items()) or "it is empty"
            raise IcrError(f"{path}: no usable record ({why})")
        part.sort(key=lambda r: hashlib.sha256(f"{cfg.seed}/{r['id']}".encode()).digest())
        parts.append(part[: cfg.per_dataset] if cfg.per_dataset else part)
    if not parts:
        raise IcrError(
            "nothing to read: give --hotpotqa, --2wiki, --musique or --records FILE (or --synth N)"
        )
    rows = [row for part in parts for row in part]
    if cfg.mix:
        random.Random(cfg.seed).shuffle(rows)
    counts["rows"] = write(folder / OUTPUT, rows, COLUMNS)
    return dict(counts)
