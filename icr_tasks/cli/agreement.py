"""`icr agreement FILE`: our SubEM, word-boundary SubEM, EM and F1 against human correctness labels.

    icr agreement labelled.jsonl [--examples 5] [--f1-threshold 0.5] [--json]

FILE has one answer a row, as JSON lines or CSV/TSV with a header. Names taken: question; golds, answers,
gold, ground_truth or golden_answers (a list, or text with `|` between aliases); answer, prediction, pred or
response; label, human, human_label, correct or judge (true/false, 1/0, yes/no, correct/incorrect).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson

from ..benchmarks.lines import records
from ..errors import IcrError
from ..metrics.agreement import Labelled, disagreements, measure

_NAMES = {
    "question": ("question", "query", "input"),
    "golds": ("golds", "answers", "gold", "ground_truth", "golden_answers"),
    "answer": ("answer", "prediction", "pred", "response"),
    "human": ("label", "human", "human_label", "correct", "judge"),
}
_YES, _NO = (
    ("1", "1.0", "true", "yes", "y", "correct", "right"),
    ("0", "0.0", "false", "no", "n", "incorrect", "wrong"),
)


def main(argv: list[str]) -> int:
    """Returns 0; raises IcrError naming file and line for a row that lacks something."""
    parser = argparse.ArgumentParser(
        prog="icr agreement", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--examples", type=int, default=3, help="disagreements shown per metric (default: 3)")
    parser.add_argument(
        "--f1-threshold", type=float, default=0.5, help="F1 from which an answer counts as right"
    )
    parser.add_argument(
        "--json", action="store_true", help="numbers and all disagreements as one JSON object"
    )
    args = parser.parse_args(argv)
    rows = read(args.file)
    found = measure(rows, threshold=args.f1_threshold)
    wrong = {name: disagreements(rows, name, args.f1_threshold) for name in found}
    if args.json:
        shown = {name: [_dict(r) for r in wrong[name]] for name in found}
        result = {
            "n": len(rows),
            "questions": len({r.question for r in rows}),
            "metrics": found,
            "disagreements": shown,
        }
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
        return 0
    print(
        f"{len(rows)} answers to {len({r.question for r in rows})} questions, {sum(r.human for r in rows)} called correct by humans\n"
    )
    print(
        f"| metric | accuracy | 95 % | kappa | 95 % | precision | recall | false yes | false no |\n|---|{'---:|' * 8}"
    )
    for name, m in found.items():
        cells = [
            _pct(m["accuracy"]),
            _range(m.get("accuracy_ci"), 100, 1),
            _two(m["kappa"]),
            _range(m.get("kappa_ci"), 1, 2),
        ]
        cells += [_pct(m["precision"]), _pct(m["recall"]), str(m["false_yes"]), str(m["false_no"])]
        print(f"| {name} | {' | '.join(cells)} |")
    for name, rows_ in wrong.items():
        # Both kinds of disagreement in turn, a wrong yes first.
        sides = [[r for r in rows_ if r.human is human] for human in (False, True)]
        for r in [r for pair in zip_longest(*sides) for r in pair if r][: args.examples]:
            print(
                f"\n{name} says {'wrong' if r.human else 'right'}, human says {'right' if r.human else 'wrong'}:"
            )
            print(
                f"  question  {_line(r.question)}\n  golds     {_line(' | '.join(r.golds))}\n  answer    {_line(r.answer)}"
            )
    return 0


def read(path: Path) -> list[Labelled]:
    """All rows of a file."""
    try:
        rows = [_row(record, f"{path}:{number}") for number, record in _records(path)]
    except OSError as error:
        raise IcrError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise IcrError(f"{path} is neither JSON lines nor a table in UTF-8 ({error})") from error
    if not rows:
        raise IcrError(f"{path} has no rows")
    return rows


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix.lower() in (".csv", ".tsv"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            for record in reader:
                yield reader.line_num, {str(k): v for k, v in record.items() if v is not None}
        return
    yield from records(path)


def _row(record: dict[str, Any], place: str) -> Labelled:
    found: dict[str, Any] = {}
    for name, names in _NAMES.items():
        key = next((n for n in names if n in record), None)
        if key is None:
            raise IcrError(f"{place}: no {name}; name the field one of {', '.join(names)}")
        found[name] = record[key]
    golds = found["golds"]
    if isinstance(golds, str):
        golds = _listed(golds)
    if not isinstance(golds, list) or not golds or not all(isinstance(g, str | int | float) for g in golds):
        raise IcrError(f"{place}: the gold answers must be a text or a list of texts")
    label = str(found["human"]).strip().lower()
    if label not in (*_YES, *_NO):
        raise IcrError(f"{place}: label {found['human']!r} is neither yes nor no; use true or false")
    if not isinstance(found["answer"], str):
        raise IcrError(f"{place}: the answer must be a text")
    return Labelled(str(found["question"]), tuple(map(str, golds)), found["answer"], label in _YES)


def _listed(text: str) -> list[str]:
    """A JSON list in a table cell, or aliases with bars between."""
    if text.startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, list):
            return found
    return [part.strip() for part in text.split("|")]


def _dict(r: Labelled) -> dict[str, Any]:
    return {"question": r.question, "golds": list(r.golds), "answer": r.answer, "human": r.human}


def _pct(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _two(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _range(bounds: list[float] | None, scale: float, digits: int) -> str:
    return "–" if bounds is None else f"{scale * bounds[0]:.{digits}f} to {scale * bounds[1]:.{digits}f}"


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 200 else flat[:197] + "..."
