"""`icr check RESULTS`: validate a results tree, e.g. before it is merged into a public board.

    icr check results/

Exit code: 0 nothing wrong, 1 problems found, 2 usage error or nothing to check.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import orjson

from ..errors import IcrError
from ..leaderboard.board import reported
from ..leaderboard.ledgers.check import MANY, check
from ..leaderboard.ledgers.ledger import run_files
from ..leaderboard.ledgers.load import Task, load_run, read_head
from ..leaderboard.pairs import axes
from ..leaderboard.text.names import count, plain


def main(argv: list[str]) -> int:
    """0 when the tree is fit to be merged, else 1."""
    parser = argparse.ArgumentParser(
        prog="icr check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="the tree of ledgers")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    report = check(args.results)
    report.warnings["."] += [*_ranking(args.results), *_reported(args.results)]
    problems = {run: found for run, found in report.problems.items() if found}
    warnings = {run: found for run, found in report.warnings.items() if found}
    if args.json:
        body = {
            "schema": 1,
            "runs": report.runs,
            "items": report.items,
            "problems": problems,
            "warnings": warnings,
        }
        print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
        return 1 if problems else 0
    for kind, found in (("warning", warnings), ("problem", problems)):
        for run, texts in found.items():
            for text in texts:
                print(f"{kind}: {plain(f'{run}: {text}' if kind == 'warning' else text)}")
    total = sum(map(len, problems.values()))
    print(
        f"{count(report.runs)} runs, {count(report.items)} items: {count(total) if total else 'no'} problems"
    )
    return 1 if problems else 0


def _reported(root: Path) -> list[str]:
    """Runs that cannot be right together with a figure that somebody published (`board.reported`)."""
    found = []
    for path in run_files(root):
        try:
            if not reported.known(str(read_head(path)["model"]["id"])):
                continue
            run = load_run(path.parent)
        except IcrError:
            continue  # a problem already
        found += [f"{run.fingerprint}: {text}" for text in reported.contradictions(run)]
    return found


def _ranking(root: Path) -> list[str]:
    """What a board will not rank together, and what it marks: differences between the runs of a task."""
    known, marked = [], []
    for path in run_files(root):
        try:
            head = read_head(path)
        except IcrError:
            continue  # a problem already
        for name, sheet in head["tasks"].items():
            known.append((head["fingerprint"], axes.identity(Task(name, sheet), head)))
            marked += [f"{head['fingerprint']}: {name}: {mark}" for mark in axes.marks(sheet)]
    found = [*axes.differences(known), *marked]
    return found[:MANY] + ([f"and {len(found) - MANY} more"] if len(found) > MANY else [])
