"""`icr score`: anybody's predictions, no model needed.

    icr score --task icr_infbench_mc --predictions preds.jsonl
    icr score --task icr_helmet_rag_nq_4k --predictions preds.jsonl --json

Predictions are JSON lines with `id` and `prediction` (or `pred`). The gold answers are the task's data, or a
`ground_truth` (or `label`) field as in InfiniteBench's released results.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import yaml

from .. import tasks_dir
from ..errors import IcrError, unknown


def main(argv: list[str]) -> int:
    """Returns 0; raises IcrError (exit 2) for predictions that do not cover the task exactly."""
    parser = argparse.ArgumentParser(
        prog="icr score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", required=True)
    parser.add_argument("--predictions", required=True, type=Path, help=".jsonl or .jsonl.gz")
    parser.add_argument("--model", help="keep only rows with this `model`")
    parser.add_argument("--allow-missing", action="store_true", help="score what is there and show N")
    parser.add_argument(
        "--allow-partial-data", action="store_true", help="accept task data with another count than the official"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    result = score(args.task, args.predictions, args.model, args.allow_missing, args.allow_partial_data or None)
    if args.json:
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
        return 0
    print(f"{result['task']}  n={result['n']}" + (f"  missing={result['n_failed']}" if result["n_failed"] else ""))
    for name, value in result["metrics"].items():
        print(f"  {name:<16} {100 * value:6.2f}")
    return 0


def sheet_of(task: str) -> dict[str, Any]:
    """The data sheet of a task, by name. Raises IcrError with the nearest match."""
    found = {}
    for path in tasks_dir().rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        name = next((line.split(": ", 1)[1] for line in text.splitlines() if line.startswith("task: ")), None)
        if name == task:
            return yaml.safe_load(text)["metadata"]["icr"]
        found[name] = path
    raise unknown("task", task, [n for n in found if n])


def score(
    task: str, path: Path, model: str | None = None, allow_missing: bool = False, allow_partial: object = None
) -> dict[str, Any]:
    """{"task", "n", "n_failed", "metrics"} with values 0-1. Raises IcrError for ids that miss, repeat or are unknown."""
    from ..tasks.scoring import SCORERS

    sheet = sheet_of(task)
    rows = _rows(path, task, model)
    docs = _docs_from_rows(rows, sheet) if _has_gold(rows) else _docs_from_data(sheet, allow_partial)
    expected = sheet.get("n") if _has_gold(rows) else len(docs)
    got = {row["id"]: row["text"] for row in rows}
    problems = _problems(rows, docs, expected)
    if problems and not (allow_missing and set(problems) == {"missing"}):
        shown = ", ".join(f"{count} {kind}" for kind, count in problems.items())
        raise IcrError(f"{path}: {shown} ids for {task} (expected {expected}); --allow-missing scores what is there")
    scored = [SCORERS[sheet["scorer"]](got[i], doc, None) for i, doc in docs.items() if i in got]
    if not scored:
        raise IcrError(f"{path}: no prediction for {task}")
    metrics = {name: sum(s[name] for s in scored) / len(scored) for name in scored[0]}
    return {"task": task, "n": len(scored), "n_failed": problems.get("missing", 0), "metrics": metrics}


def _rows(path: Path, task: str, model: str | None) -> list[dict[str, Any]]:
    rows, models = [], Counter[str]()
    for number, record in _records(path):
        if "task" in record and not _same_task(str(record["task"]), task):
            continue
        if "model" in record:
            models[str(record["model"])] += 1
            if model is not None and str(record["model"]) != model:
                continue
        text = record.get("prediction", record.get("pred"))
        if "id" not in record or not isinstance(text, str):
            raise IcrError(f"{path}:{number}: needs `id` and a text `prediction` (or `pred`)")
        gold = next((record[k] for k in ("label", "ground_truth") if k in record), None)
        rows.append({"id": str(record["id"]), "text": text, "gold": gold})
    if model is not None and model not in models:
        raise unknown("model in the predictions", model, models)
    if model is None and len(models) > 1:
        raise IcrError(f"{path} holds several models; choose one with --model: {', '.join(sorted(models))}")
    return rows


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.strip():
                    continue
                try:
                    record = orjson.loads(raw)
                except orjson.JSONDecodeError as error:
                    raise IcrError(f"{path}:{number}: not valid JSON ({error})") from error
                if not isinstance(record, dict):
                    raise IcrError(f"{path}:{number}: expected a JSON object")
                yield number, record
    except OSError as error:
        raise IcrError(f"cannot read {path}: {error.strerror or error}") from error


_OFFICIAL_NAMES = {"longbook_choice_eng": "icr_infbench_mc", "longbook_qa_eng": "icr_infbench_qa", "longbook_sum_eng": "icr_infbench_sum"}  # fmt: skip


def _same_task(name: str, task: str) -> bool:
    return _OFFICIAL_NAMES.get(name, name) == task


def _has_gold(rows: list[dict[str, Any]]) -> bool:
    return bool(rows) and all(row["gold"] is not None for row in rows)


def _docs_from_rows(rows: list[dict[str, Any]], sheet: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Gold answers as InfiniteBench's result files carry them; En.MC has [option text, letter]."""
    docs = {}
    for row in rows:
        gold = row["gold"] if isinstance(row["gold"], list) else [row["gold"]]
        doc = {"answers": [str(g) for g in gold]}
        if sheet["scorer"] == "infbench_mc":
            # The scorer wants the letter from the options' order; the file has only the right one.
            doc["options"] = [gold[0] if letter == gold[1] else f"\0{letter}" for letter in "ABCD"]
            doc["answers"] = [str(gold[0])]
        docs[row["id"]] = doc
    return docs


def _docs_from_data(sheet: dict[str, Any], allow_partial: object) -> dict[str, dict[str, Any]]:
    from .. import data
    from ..tasks.base import light

    items = data.load(sheet["benchmark"], sheet["dataset"], sheet.get("length"), allow_partial=allow_partial)
    docs = {}
    for item in items.items:
        doc = light(item)
        docs[item.id] = doc
    # The benchmarks' own numeric ids are accepted too.
    short = {i.removeprefix(f"{sheet['dataset']}-"): doc for i, doc in docs.items()}
    return short if sheet["benchmark"] == "infbench" else docs


def _problems(rows: list[dict[str, Any]], docs: dict[str, Any], expected: int | None) -> dict[str, int]:
    counts = Counter(row["id"] for row in rows)
    found = {
        "duplicate": sum(n - 1 for n in counts.values()),
        "unknown": sum(1 for i in counts if i not in docs),
        "missing": max((expected or len(docs)) - sum(1 for i in counts if i in docs), 0),
    }
    return {kind: count for kind, count in found.items() if count}
