"""Label files: answers with a human's verdict, as JSON array, JSON lines, CSV or TSV, long or wide.

Long: one answer a row. Wide: one question a row, with `answer_NAME` and `label_NAME` (or `judge_NAME`,
`NAME_answer`) for each system. What cannot be used (a null label, one that is neither true nor false, an
answer that is no text) is counted and named, never guessed.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import IcrError, unknown
from ..metrics.agreement import Labelled
from ..metrics.ratings import Rated
from ..metrics.visible import as_text

NAMES = {
    "question": ("question", "query", "input", "prompt"),
    "golds": (
        "golds",
        "answers",
        "gold",
        "ground_truth",
        "golden_answers",
        "golden_answer",
        "gold_answer",
        "gold_answers",
        "reference",
        "references",
        "target",
    ),
    "answer": ("answer", "prediction", "pred", "response", "output", "model_answer", "candidate"),
    "human": (
        "label",
        "human",
        "human_label",
        "correct",
        "judge",
        "human_judgement",
        "human_judgment",
        "is_correct",
        "rating",
    ),
    "system": ("system", "model", "source_system"),
}
YES, NO = (
    ("1", "1.0", "true", "yes", "y", "correct", "right", "c"),
    ("0", "0.0", "false", "no", "n", "incorrect", "wrong", "i"),
)
_ANSWER_WORDS = ("answer", "prediction", "pred", "response", "output")
_LABEL_WORDS = ("label", "judge", "human", "correct", "human_label")
_SHOWN = 5


@dataclass
class Labels:
    """The rows of a file that can be used, and how many could not be, by reason."""

    rows: list[Labelled] = field(default_factory=list)
    rated: list[Rated] = field(default_factory=list)  # instead of rows, where the labels are ratings
    skipped: Counter[str] = field(default_factory=Counter)


def read_labels(
    path: Path,
    columns: Mapping[str, str] | None = None,
    separator: str | None = None,
    *,
    ratings: bool = False,
) -> Labels:
    """All rows of a file. `columns` names fields (question, golds, answer, label, system) where they have
    other names, `separator` stands between the aliases of a gold in a text. `ratings`: labels are numbers.
    Raises IcrError naming file and line."""
    found = Labels()
    n = 0
    try:
        for number, record in _records(path):
            n += 1
            place = f"{path}:{number}"
            take = _rate if ratings else partial(_one, place)
            _add(found, record, place, columns or {}, separator, take)
    except (OSError, EOFError, zlib.error) as error:
        raise IcrError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise IcrError(f"{path} is neither JSON nor a table in UTF-8 ({error})") from error
    if not n:
        raise IcrError(f"{path} has no rows")
    if not found.rows and not found.rated:
        why, count = found.skipped.most_common(1)[0]
        use = "numbers" if ratings else "true or false"
        raise IcrError(f"{path}: none of {n} rows can be used: {count} x {why}; use {use} as labels")
    return found


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    raw = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    text = raw.decode("utf-8-sig")
    if kind in ("csv", "tsv"):
        csv.field_size_limit(2**31 - 1)
        lines = io.StringIO(text, newline="")  # a separator of lines within an answer ends none of the table
        reader = csv.DictReader(lines, delimiter="\t" if kind == "tsv" else ",")
        for row in reader:
            yield reader.line_num, {str(k): v for k, v in row.items() if k is not None and v is not None}
        return
    if text.lstrip()[:1] == "[":
        for number, record in enumerate(_json(text, f"{path}"), 1):
            yield number, _object(record, f"{path}: record {number}")
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _object(_json(line, f"{path}:{number}"), f"{path}:{number}")


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise IcrError(f"{place}: not valid JSON ({error})") from error


def _object(record: Any, place: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise IcrError(f"{place}: expected a JSON object, found {type(record).__name__}")
    return record


def _add(
    found: Labels,
    record: dict[str, Any],
    place: str,
    columns: Mapping[str, str],
    separator: str | None,
    take: Callable[[Labels, str, tuple[str, ...], Any, Any, tuple[str, ...]], None],
) -> None:
    plain = {re.sub(r"[\s-]+", "_", str(name).strip().lower()): value for name, value in record.items()}
    fields = {**plain, **{str(name): value for name, value in record.items()}}
    golds = _golds(_field(fields, "golds", columns, place), place, separator)
    question = str(_field(fields, "question", columns, place))
    wide = None if {"answer", "label"} & set(columns) else _wide(plain)
    if wide:
        for system, answer, label in wide:
            take(found, question, golds, answer, label, (system,))
        return
    answer = _field(fields, "answer", columns, place)
    label = _field(fields, "human", columns, place, said="label")
    system = _field(fields, "system", columns, place, needed="system" in columns)
    systems = system if isinstance(system, list) else [] if system in (None, "") else [system]
    take(found, question, golds, answer, label, tuple(map(str, systems)))


def _one(
    place: str,
    found: Labels,
    question: str,
    golds: tuple[str, ...],
    answer: Any,
    label: Any,
    systems: tuple[str, ...],
) -> None:
    """Raises IcrError for a rating: beside ratings of 2 to 5 one of 1 is no verdict."""
    said = "" if label is None else str(label).strip().lower()
    if label is None or said in ("", "null", "none", "nan", "na"):
        found.skipped["null label"] += 1
    elif said not in (*YES, *NO) and _rating(label) not in (None, 0.0, 1.0):
        raise IcrError(
            f"{place}: label {label!r} is a number and neither 0 nor 1; `icr agreement --ratings` reads ratings"
        )
    elif said not in (*YES, *NO):
        known = f"label {label!r} is neither yes nor no"
        named = [reason for reason in found.skipped if reason.startswith("label ")]
        found.skipped[
            known if known in named or len(named) < _SHOWN else "other labels neither yes nor no"
        ] += 1
    elif (text := _text(found, answer)) is not None:
        found.rows.append(Labelled(question, golds, text, said in YES, systems))


def _rate(
    found: Labels, question: str, golds: tuple[str, ...], answer: Any, label: Any, systems: tuple[str, ...]
) -> None:
    rating = _rating(label)
    if rating is None:
        found.skipped["rating is no number"] += 1
    elif (text := _text(found, answer)) is not None:
        found.rated.append(Rated(question, golds, text, rating, systems))


def _rating(label: Any) -> float | None:
    """A label as a finite number; None where it is none."""
    try:
        rating = math.nan if label is None or isinstance(label, bool) else float(label)
    except (TypeError, ValueError, OverflowError):
        return None
    return rating if math.isfinite(rating) else None


def _text(found: Labels, answer: Any) -> str | None:
    text = as_text(answer)
    if text is None:
        kind = {type(None): "null", int: "number", float: "number", list: "list"}.get(type(answer), "object")
        found.skipped[f"answer is a {kind} and must be a text"] += 1
    return text


def _field(
    fields: Mapping[str, Any],
    name: str,
    columns: Mapping[str, str],
    place: str,
    *,
    said: str = "",
    needed: bool | None = None,
) -> Any:
    given = columns.get(said or name)
    if given is not None:
        if given not in fields:
            raise IcrError(f"{place}: {unknown('column', given, fields)}")
        return fields[given]
    key = next((n for n in NAMES[name] if n in fields), None)
    if key is not None:
        return fields[key]
    if needed if needed is not None else name != "system":
        raise IcrError(
            f"{place}: no {said or name}; name the field one of {', '.join(NAMES[name])}, or --columns "
            f"{said or name}=..."
        )
    return None


def _wide(fields: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(system, answer, label) of a row with one pair of columns a system; empty for a long file."""
    found = []
    for key, value in fields.items():
        for word in _ANSWER_WORDS:
            system = (
                key.removeprefix(f"{word}_")
                if key.startswith(f"{word}_")
                else (key.removesuffix(f"_{word}") if key.endswith(f"_{word}") else "")
            )
            labels = [
                name for w in _LABEL_WORDS for name in (f"{w}_{system}", f"{system}_{w}") if name in fields
            ]
            if system and labels:
                found.append((system, value, fields[labels[0]]))
                break
    return found


def _golds(value: Any, place: str, separator: str | None) -> tuple[str, ...]:
    if isinstance(value, str):
        value = _listed(value, separator)
    if not isinstance(value, list) or not value or not all(isinstance(g, str | int | float) for g in value):
        raise IcrError(f"{place}: the gold answers must be a text or a list of texts")
    return tuple(map(str, value))


def _listed(text: str, separator: str | None) -> Sequence[str]:
    """A JSON list in a table cell, or aliases with the separator (default: a bar) between."""
    if text.startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, list):
            return found
    return [part.strip() for part in text.split(separator or "|") if part.strip()] or [text]
