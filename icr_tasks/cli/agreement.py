"""`icr agreement FILE`: our SubEM, word-boundary SubEM, EM and F1 against human correctness labels.

    icr agreement labelled.jsonl [--examples 5] [--f1-threshold 0.5] [--json]
    icr agreement rated.jsonl --ratings            labels are numbers: which metric orders answers as people do

FILE is a JSON array, JSON lines, CSV or TSV with a header (any of them also .gz): one answer a row, or one
question a row with `answer_NAME` and `label_NAME` (or `judge_NAME`) for each system. Names taken, in any
case: question; golds, answers, gold, ground_truth or golden_answers (a list, or text with `|` between
aliases: --separator); answer, prediction, pred or response; label, human, human_label, correct or judge
(true/false, 1/0, yes/no, correct/incorrect); system or model. Others: --columns
question=Q,golds=G,answer=A,label=L,system=S. Rows without a usable label are counted and left out; numbers beside 0 and 1
are ratings, which are refused without --ratings.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson

from ..errors import IcrError, unknown
from ..metrics.agreement import HEADLINE, Labelled, by_system, disagreements, measure, out_of_order
from ..metrics.ratings import in_order
from .amounts import at_least, share
from .labels import Labels, read_labels

_FIELDS = ("question", "golds", "answer", "label", "system")


def main(argv: list[str]) -> int:
    """Returns 0; raises IcrError naming file and line for a row that lacks something."""
    parser = argparse.ArgumentParser(
        prog="icr agreement", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="answers with human labels, described above")
    parser.add_argument(
        "--examples", type=at_least(0), default=3, help="disagreements shown per metric (default: 3)"
    )
    parser.add_argument(
        "--f1-threshold", type=share, default=0.5, help="F1 from which an answer counts as right"
    )
    parser.add_argument(
        "--json", action="store_true", help="numbers and all disagreements as one JSON object"
    )
    parser.add_argument(
        "--columns",
        default="",
        metavar="FIELD=NAME,...",
        help="names of question, golds, answer, label, system",
    )
    parser.add_argument("--separator", help="what stands between aliases in a text (default: |)")
    parser.add_argument(
        "--ratings",
        action="store_true",
        help="labels are numbers, higher is better: the share of pairs of answers to a question that each metric "
        "puts in the people's order",
    )
    parser.add_argument("--by", choices=("system",), help="a table by system and the order it gives")
    args = parser.parse_args(argv)
    labels = read_labels(args.file, _columns(args.columns), args.separator, ratings=args.ratings)
    if args.ratings:
        if args.by:
            raise IcrError("--ratings has no table by system; leave --by out")
        return _ratings(labels, args.json)
    rows = labels.rows
    systems = by_system(rows, args.f1_threshold) if args.by else {}
    if args.by and not systems:
        raise IcrError(f"{args.file} names no system; --columns system=... says which field does")
    found = measure(rows, threshold=args.f1_threshold)
    wrong = {name: disagreements(rows, name, args.f1_threshold) for name in found}
    if args.json:
        shown = {name: [_dict(r) for r in wrong[name]] for name in found}
        result = {
            "n": len(rows),
            "questions": len({r.question for r in rows}),
            "headline": HEADLINE,
            "skipped": dict(labels.skipped),
            "metrics": found,
            **({"systems": systems} if systems else {}),
            **({"out_of_order": {m: out_of_order(systems, m) for m in found}} if systems else {}),
            "disagreements": shown,
        }
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
        return 0
    print(
        f"{len(rows)} answers to {len({r.question for r in rows})} questions, {sum(r.human for r in rows)} "
        "called correct by humans\n"
    )
    print(
        "| metric | accuracy | 95 % | kappa | 95 % | precision | recall | false yes | false no "
        f"| kappa over {HEADLINE} | 95 % |\n|---|{'---:|' * 10}"
    )
    for name, m in found.items():
        cells = [
            _pct(m["accuracy"]),
            _range(m.get("accuracy_ci"), 100, 1),
            _two(m["kappa"]),
            _range(m.get("kappa_ci"), 1, 2),
        ]
        cells += [_pct(m["precision"]), _pct(m["recall"]), str(m["false_yes"]), str(m["false_no"])]
        cells += [_signed(m["kappa_gain"]), _range(m.get("kappa_gain_ci"), 1, 2)]
        print(f"| {name} | {' | '.join(cells)} |")
    own = ", ".join(f"{name} {m['false_yes'] - m['false_yes_stated']}" for name, m in found.items())
    print(
        f"\nfalse yes where no gold stands in the answer word for word, the rules' own, of {sum(not r.human for r in rows)} "
        f"wrong answers: {own}"
    )
    for reason, n in labels.skipped.items():
        print(f"{n} left out: {reason}")
    if systems:
        print(_systems(systems, list(found)))
    for name, rows_ in wrong.items():
        # Both kinds of disagreement in turn, a wrong yes first.
        sides = [[r for r in rows_ if r.human is human] for human in (False, True)]
        for r in [r for pair in zip_longest(*sides) for r in pair if r][: args.examples]:
            print(
                f"\n{name} says {'wrong' if r.human else 'right'}, human says "
                f"{'right' if r.human else 'wrong'}:"
            )
            print(
                f"  question  {_line(r.question)}\n  golds     {_line(' | '.join(r.golds))}\n  answer    "
                f"{_line(r.answer)}"
            )
    return 0


def _ratings(labels: Labels, as_json: bool) -> int:
    rows, found = labels.rated, in_order(labels.rated)
    questions = len({r.question for r in rows})
    if as_json:
        result = {"n": len(rows), "questions": questions, "skipped": dict(labels.skipped), "metrics": found}
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
        return 0
    print(
        f"{len(rows)} rated answers to {questions} questions\n\n| metric | pairs | in order | 95 % |\n|---|---:|---:|---:|"
    )
    for name, m in found.items():
        print(f"| {name} | {m['pairs']} | {_pct(m['in_order'])} | {_range(m.get('in_order_ci'), 100, 1)} |")
    for reason, n in labels.skipped.items():
        print(f"{n} left out: {reason}")
    return 0


def _columns(text: str) -> dict[str, str]:
    found = {}
    for part in filter(None, text.split(",")):
        name, equals, column = part.partition("=")
        if not equals or name.strip() not in _FIELDS:
            raise unknown("--columns field", name.strip(), _FIELDS)
        found[name.strip()] = column.strip()
    return found


def read(path: Path) -> list[Labelled]:
    """All rows of a file that have a verdict."""
    return read_labels(path).rows


def _systems(found: dict[str, dict[str, float]], metrics: Sequence[str]) -> str:
    """Table by system in the humans' order, and how many pairs each metric puts in another one."""
    lines = [
        f"\n| system | answers | human | {' | '.join(metrics)} |",
        f"|---|{'---:|' * (len(metrics) + 2)}",
    ]
    for name, row in found.items():
        cells = [_pct(row["human"]), *(_pct(row[m]) for m in metrics)]
        lines.append(f"| {name} | {row['n']:.0f} | {' | '.join(cells)} |")
    wrong = [out_of_order(found, m) for m in metrics]
    lines.append(f"| pairs out of order | | | {' | '.join(f'{n} of {total}' for n, total in wrong)} |")
    return "\n".join(lines)


def _dict(r: Labelled) -> dict[str, Any]:
    return {"question": r.question, "golds": list(r.golds), "answer": r.answer, "human": r.human}


def _pct(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _two(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}"


def _range(bounds: list[float] | None, scale: float, digits: int) -> str:
    return "–" if bounds is None else f"{scale * bounds[0]:.{digits}f} to {scale * bounds[1]:.{digits}f}"


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 200 else flat[:197] + "..."
