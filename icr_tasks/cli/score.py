"""`icr score`: anybody's predictions, no model needed.

    icr score --task icr_infbench_mc --predictions preds.jsonl
    icr score --task icr_helmet_rag_nq_4k --predictions preds.jsonl --json
    icr score --task icr_infbench_mc --predictions preds.jsonl --xfinder-base-url http://localhost:8002/v1 --xfinder-model M
    icr score --task icr_loong_fin --predictions preds.jsonl --judge-base-url http://localhost:8001/v1 --judge-model M

Predictions are JSON lines with `id` and `prediction` (or `pred`), and `finish_reason` where it is known. The
gold answers are the task's data, or a `ground_truth` (or `label`) field as in InfiniteBench's released
results. A judge or xFinder needs the task's data.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from ..benchmarks import base, predictions
from ..benchmarks.base import Item
from ..benchmarks.catalog import metrics_of, sheet_of
from ..errors import IcrError
from ..registry import METRICS

_NAMED = 5  # how many ids of unreadable predictions are named


def main(argv: list[str]) -> int:
    """Returns 0, or 3 when a judge or extractor failed and all else was printed.

    Raises IcrError (exit 2) for predictions that do not cover the task exactly.
    """
    parser = argparse.ArgumentParser(
        prog="icr score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", required=True, help="the task whose items they answer")
    parser.add_argument("--predictions", required=True, type=Path, help=".jsonl or .jsonl.gz")
    parser.add_argument("--model", help="keep only rows with this `model`")
    parser.add_argument("--allow-missing", action="store_true", help="score what is there and show N")
    parser.add_argument(
        "--allow-partial-data",
        action="store_true",
        help="accept task data with another count than the official",
    )
    for who in ("xfinder", "judge"):
        for name in ("base-url", "model"):
            parser.add_argument(f"--{who}-{name}", help=argparse.SUPPRESS)
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any judge_*, xfinder_* or similarity_* option of docs/judge.md",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    graders = _graders(args)
    result = score(
        args.task, args.predictions, args.model, args.allow_missing, args.allow_partial_data or None, graders
    )
    if args.json:
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
        return _failed(result)
    print(
        f"{result['task']}  n={result['n']}"
        + (f"  missing={result['n_failed']}" if result["n_failed"] else "")
    )
    for kind, n in result.get("unreadable", {}).items():
        named = ", ".join(result["unreadable_ids"][kind]) + (", ..." if n > _NAMED else "")
        print(
            f"  {n} of the predictions {'is' if n == 1 else 'are'} no text but a {kind}: counted as no answer ({named})"
        )
    for name, value in result["metrics"].items():
        mark = "  (headline)" if name == result["headline"] else ""
        print(f"  {name:<20} {100 * value:6.2f}{mark}")
    for name, why in result.get("reasons", {}).items():
        print(f"  {name:<20} {'–':>6}  {why}")
    return _failed(result)


def _failed(result: dict[str, Any]) -> int:
    if "error" in result:
        print(f"icr: error: {result['error']}", file=sys.stderr)
    return 3 if "error" in result else 0


def grader_options(texts: Iterable[str]) -> dict[str, Any]:
    """Values of `--option KEY=VALUE`, objects as JSON. Raises IcrError for another form.

    >>> grader_options(["judge_rubric=paper", 'judge_extra={"temperature": null}'])
    {'judge_rubric': 'paper', 'judge_extra': {'temperature': None}}
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise IcrError(f"--option {key!r}: write NAME=VALUE, e.g. judge_rubric=paper")
        try:
            found[key] = orjson.loads(value) if value.startswith("{") else value
        except ValueError as error:
            raise IcrError(f"--option {key}={value}: not valid JSON ({error})") from error
    return found


def _graders(args: argparse.Namespace) -> Any:
    """The judge and extractor asked for, or None."""
    given = {k: v for k, v in vars(args).items() if k.startswith(("judge_", "xfinder_")) and v is not None}
    given |= grader_options(args.option)
    if not given:
        return None
    from ..harness.grading import Graders

    return Graders.parse(given)


def score(
    task: str,
    path: Path,
    model: str | None = None,
    allow_missing: bool = False,
    allow_partial: object = None,
    graders: Any = None,
    *,
    fix: str = "--allow-missing scores what is there",
    named: str = "",
) -> dict[str, Any]:
    """{"task", "n", "n_failed", "metrics"} with values 0-1. Raises IcrError for ids that miss, repeat or are
    unknown.

    With `graders` also their metrics, or `reasons` by metric and an `error`; metrics are means over the items
    that have them. `fix` is what an error says of missing ids; `named`, what it calls the predictions (default: the path).
    """
    from ..metrics import scorers
    from ..metrics.given import given

    sheet = sheet_of(task)
    rows = predictions.read(path, task=task, model=model)
    items: dict[str, Item] = {}
    more = [name for name in metrics_of(task) if name in METRICS]  # registered ones, which get the item
    alone = bool(rows) and all(row.gold is not None for row in rows) and graders is None and not more
    docs = _docs_from_rows(task, rows, sheet) if alone else _docs_from_data(sheet, allow_partial, items)
    expected = (sheet.get("n") if alone else None) or len(docs)
    seen = {
        predictions.item_id(task, row.id): given(row.text, finish_reason=row.finish_reason) for row in rows
    }
    got = {i: one.text for i, one in seen.items()}
    problems = predictions.problems(task, (row.id for row in rows), docs, expected)
    if problems and not (allow_missing and set(problems) == {"missing"}):
        raise predictions.refuse(named or path, task, problems, expected, fix)
    marker = scorers.asks_marker(base.get(sheet["benchmark"], sheet.get("prompt"), sheet["dataset"]).user)
    scored = [
        {
            **scorers.score(sheet["scorer"], seen[i], doc, marker=marker, more=more, item=items.get(i)),
            "unfinished": float(seen[i].unfinished),
        }
        for i, doc in docs.items()
        if i in got
    ]
    if not scored:
        raise IcrError(f"{named or path}: no prediction for {task}")
    metrics = {name: sum(s[name] for s in scored) / len(scored) for name in scored[0]}
    unread: dict[str, list[str]] = {}
    for row in rows:
        if (i := predictions.item_id(task, row.id)) in docs and not seen[i].readable:
            unread.setdefault(_kind(row.text), []).append(row.id)
    result = {
        "task": task,
        "headline": sheet["metric"],
        "metric_version": sheet["metric_version"],
        "n": len(scored),
        "n_failed": problems.get("missing", 0),
        "metrics": metrics,
        **({"unreadable": {kind: len(ids) for kind, ids in unread.items()}} if unread else {}),
        **({"unreadable_ids": {kind: ids[:_NAMED] for kind, ids in unread.items()}} if unread else {}),
    }
    return result if graders is None else {**result, **_graded(sheet, graders, docs, items, got, metrics)}


def _graded(
    sheet: Any, graders: Any, docs: Any, items: dict[str, Item], got: dict[str, str], metrics: Any
) -> dict[str, Any]:
    """`metrics` with those of the judge or extractor added, `reasons` for missing ones, and the `error` there
    was."""
    from ..harness.grading import Answer, grade, means

    answers = [Answer(doc, items[i].fields, got[i]) for i, doc in docs.items() if i in got]
    grades = grade(sheet["scorer"], graders, answers)
    reasons = grades.sheet.get("reasons")
    return {
        "metrics": {**metrics, **means(list(grades.metrics.values()))},
        **({"reasons": reasons} if reasons else {}),
        **({"error": str(grades.error)} if grades.error else {}),
    }


def _kind(value: object) -> str:
    """What a prediction that is no text is, in a word."""
    words = {type(None): "null", bool: "true or false", int: "number", float: "number", list: "list"}
    return words.get(type(value), "object")


def _docs_from_rows(
    task: str, rows: list[predictions.Prediction], sheet: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Gold answers as InfiniteBench's result files carry them; En.MC has [option text, letter]."""
    docs = {}
    for row in rows:
        gold = row.gold if isinstance(row.gold, list) else [row.gold]
        if not gold or not all(isinstance(g, str | int | float) for g in gold):
            raise IcrError(f"the gold answer of {row.id} must be a text, a number or a list of them")
        doc = {"answers": [str(g) for g in gold]}
        if sheet["scorer"] == "infbench_mc":
            # The scorer wants the letter from the options' order; the file has only the right one.
            doc["options"] = [gold[0] if letter == gold[1] else f"\0{letter}" for letter in "ABCD"]
            doc["answers"] = [str(gold[0])]
        docs[predictions.item_id(task, row.id)] = doc
    return docs


def _docs_from_data(
    sheet: dict[str, Any], allow_partial: object, items: dict[str, Item]
) -> dict[str, dict[str, Any]]:
    from .. import benchmarks
    from ..harness.instance import light

    found = benchmarks.load(
        sheet["benchmark"], sheet["dataset"], sheet.get("length"), allow_partial=allow_partial
    )
    items.update({item.id: item for item in found.items})  # for judges and registered metrics
    return {item.id: light(item) for item in found.items}
