"""`icr check`: is a results tree fit to be merged into a public board? Every problem with file and line.

Checked: place and name of every folder, schema, fingerprint, readable rows, known tasks, scores between 0 and
1, labels, duplicates, counts and means against run.json, and that all runs of a task saw the same items and
gold answers. A credential anywhere in the tree is a problem, too.
"""

from __future__ import annotations

import gzip
import math
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from icr_tasks.credentials import found_secrets
from icr_tasks.errors import IcrError
from icr_tasks.schema import read_head, run_fingerprint
from icr_tasks.storage import files_below

from .ledger import ITEMS, length_fault, rows, run_files, slug

_NAMES = {"run.json", ITEMS}
MANY = 20  # problems shown a run


@dataclass
class Report:
    """Problems and warnings by run folder (as text), and what was looked at."""

    runs: int = 0
    items: int = 0
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    warnings: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def check(root: Path) -> Report:
    """Look at every run below `root`. Raises IcrError where there is nothing to look at."""
    paths = run_files(root)
    if not paths:
        what = "holds no run.json" if root.is_dir() else "is not a folder"
        raise IcrError(f"{root} {what}; write ledgers there with `icr collect OUT -o {root}`")
    report = Report()
    gold: dict[Any, Any] = {}
    seen: dict[str, Path] = {}
    for path in paths:
        folder, name = path.parent, str(path.parent.relative_to(root))
        report.runs += 1
        try:
            head = read_head(path, as_written=True)
        except IcrError as error:
            report.problems[name].append(str(error))
            continue
        try:
            report.problems[name] += _head(folder, head)
            report.warnings[name] += _private(head)
            if head["fingerprint"] in seen:
                report.problems[name].append(
                    f"{path}: the same run as {seen[head['fingerprint']]}; keep one of them"
                )
            seen.setdefault(head["fingerprint"], path)
            found = list(_items(folder / ITEMS, head, gold, report))
        except (TypeError, AttributeError) as error:  # what nobody foresaw in one run, all others are told of
            report.problems[name].append(f"{path}: not a run ({error}); collect the run again")
            continue
        more = len(found) - MANY
        report.problems[name] += found[:MANY] + ([f"{name}: and {more} more problems"] if more > 0 else [])
    report.problems["."] += _strays(root)
    for name, found in _secrets(root):
        report.problems[name] += found
    return report


def _head(folder: Path, head: dict[str, Any]) -> Iterator[str]:
    path = folder / "run.json"
    want = (slug(str(head["model"]["id"])), slug(str(head["setting"]["text"])), str(head["fingerprint"]))
    if folder.absolute().parts[-3:] != want:
        yield f"{path}: belongs into {'/'.join(want)}; move the folder there"
    if head.get("started") is not None and began(head) is None:
        yield f"{path}: started {str(head['started'])[:40]!r} is no time before tomorrow; collect the run again"
    inputs = head.get("fingerprint_inputs")
    if not isinstance(inputs, dict) or run_fingerprint(inputs) != head["fingerprint"]:
        yield f"{path}: fingerprint {head['fingerprint']} does not follow from fingerprint_inputs; collect the run again"
    for name, sheet in head["tasks"].items():
        if fault := length_fault(name, sheet):
            yield f"{path}: {fault}"
        if sheet.get("status") not in ("complete", "partial", "error"):
            yield f"{path}: {name} has status {sheet.get('status')!r}; collect the run again"
        if sheet.get("status") == "complete" and (sheet.get("n_scored") or 0) < (
            sheet.get("n_expected") or 0
        ):
            yield f"{path}: {name} says complete with {sheet.get('n_scored')} of {sheet.get('n_expected')} items"
        if sheet.get("n_expected") is not None and (sheet.get("n_scored") or 0) > sheet["n_expected"]:
            yield f"{path}: {name} has {sheet['n_scored']} items scored, more than the {sheet['n_expected']} expected"
        if sheet.get("n_expected") is None or not sheet.get("task_version"):
            yield f"{path}: {name} states no n_expected or task_version; collect the run again"
        if sheet.get("benchmark") and not (sheet.get("metric") and sheet.get("data_revision")):
            yield f"{path}: {name} states no metric or data_revision; unpinned data cannot be ranked"


def began(head: dict[str, Any]) -> float | None:
    """When a run began, in seconds since 1970; None where that is not told, no time, or a time to come."""
    value: Any = head.get("started")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value).timestamp()
        except ValueError:
            return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 < value < time.time() + 86400 else None


def _private(head: dict[str, Any]) -> Iterator[str]:
    for key, value in (head.get("fingerprint_inputs", {}).get("model_args") or {}).items():
        if isinstance(value, str) and value.startswith(("/", "~")):
            yield f"run.json: model_args.{key} is a path of one machine ({value}); nobody else gets this fingerprint"


def _items(path: Path, head: dict[str, Any], gold: dict[Any, Any], report: Report) -> Iterator[str]:
    keys: set[tuple[str, str, int]] = set()
    sums: dict[str, dict[str, list[float]]] = {name: {} for name in head["tasks"]}
    tallied = ("n_scored", "n_failed", "n_truncated", "n_unfinished")
    counts = {  # ledgers of before version 2 do not count what was not finished
        name: dict.fromkeys([w for w in tallied if w != "n_unfinished" or w in sheet], 0)
        for name, sheet in head["tasks"].items()
    }
    number = 0
    try:
        for number, row in rows(path):
            if wrong := _row(row, head):
                yield f"{path}:{number}: {wrong}"
                continue
            key = (row["task"], row["item"], row.get("occ", 0))
            if key in keys:
                yield f"{path}:{number}: {row['task']} item {row['item']} twice; collect the run again"
            keys.add(key)
            first = gold.setdefault(
                (*key, head["tasks"][row["task"]].get("data_revision")),
                (row["target_hash"], path, row.get("cluster")),
            )
            if first[0] != row["target_hash"]:
                yield f"{path}:{number}: {row['item']} has another gold answer than in {first[1]}"
            elif first[2] != row.get("cluster"):
                yield f"{path}:{number}: {row['item']} has another cluster label than in {first[1]}"
            tally = counts[row["task"]]
            tally["n_failed" if row.get("error") or not row["score"] else "n_scored"] += 1
            tally["n_truncated"] += bool(row.get("truncated"))
            if "n_unfinished" in tally:
                tally["n_unfinished"] += bool(row.get("unfinished"))
            for metric, value in row["score"].items():
                sums[row["task"]].setdefault(metric, []).append(value)
    except IcrError as error:
        yield str(error)
        return
    report.items += number
    for name, sheet in head["tasks"].items():
        for what, n in counts[name].items():
            if sheet.get(what) != n:
                yield f"{path}: {name} has {what} {n}, run.json says {sheet.get(what)}; collect the run again"
        for metric, mean in (sheet.get("means") or {}).items():
            values = sums[name].get(metric)
            if not values or not math.isclose(
                math.fsum(values) / len(values), mean, rel_tol=1e-9, abs_tol=1e-9
            ):
                yield f"{path}: {name} has another mean {metric} than run.json ({mean:g}); collect the run again"
        if sheet.get("status") == "complete" and sheet.get("metric") not in (None, *sums[name]):
            yield f"{path}: {name} has no score {sheet['metric']!r}, its headline metric"


def _row(row: Any, head: dict[str, Any]) -> str | None:
    if not isinstance(row, dict) or not isinstance(row.get("score"), dict):
        return "not a ledger row; collect the run again"
    gone = [
        k for k in ("task", "item", "cluster", "target_hash", "prompt_hash", "resp_hash") if not row.get(k)
    ]
    if gone == ["cluster"] and not head["tasks"].get(row["task"], {}).get("benchmark"):
        gone = []  # a stock lm-eval task knows no clusters; comparisons then ask for --allow clusters
    if gone:
        return f"no {', '.join(gone)}; collect the run again"
    if row["task"] not in head["tasks"]:
        return f"task {row['task']!r} is not in run.json"
    for metric, value in row["score"].items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            return f"{metric} is {value!r}, not a score between 0 and 1"
    return None


def _secrets(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(run folder, problems) for every file with a credential in it, whoever wrote it; named, never
    repeated."""
    for path in sorted(p for p in files_below(root) if p.is_file()):
        found = list(islice(_in_file(path), MANY))
        if found:
            gone = "; remove it and make the key invalid: whoever read the file knows it"
            name = str(path.parent.relative_to(root))
            yield name, [f"{path}{where} looks like a secret{gone}" for where in found]


def _in_file(path: Path) -> Iterator[str]:
    """Places of credentials in a file: a record by its keys, everything else line by line as text."""
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        if path.suffix == ".json":
            yield from (f": {place}" for place in found_secrets(orjson.loads(raw)))
            return
    except (OSError, EOFError, ValueError, zlib.error):
        pass  # damaged, which is told elsewhere; what can be read of it is looked at
    text = raw.decode("utf-8", "replace")
    if next(found_secrets(text), None):
        yield from (f":{n}" for n, line in enumerate(text.split("\n"), 1) if next(found_secrets(line), None))


def _strays(root: Path) -> Iterator[str]:
    for path in sorted(files_below(root)):
        if path.is_file() and path.parent != root and path.name not in _NAMES:
            yield f"{path}: not part of a results tree; remove it"
        elif path.name == ITEMS and not (path.parent / "run.json").is_file():
            yield f"{path}: without run.json; collect the run again"
