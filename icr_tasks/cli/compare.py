"""`icr compare A B`: two runs item by item, errors clustered by question, and what flipped.

    icr compare 3f9a1c 77b02e --flips flips.md
    icr compare results/qwen/full/3f9a1c0d2e4b results/qwen/kv_fp8/77b02e11aa90 --samples out/ --flips flips.md

A and B are run folders or the first digits of a fingerprint (looked up below --results). Exit code 4: not
comparable.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import storage
from ..leaderboard.ledgers import load
from ..leaderboard.pairs import compare, flips, forest, reports
from ..leaderboard.pairs import joined as pairs
from ..leaderboard.pairs.axes import FREE
from ..leaderboard.pairs.comparable import WAIVABLE
from .amounts import at_least


def add_pairing(parser: argparse.ArgumentParser) -> None:
    """Options that decide which items are compared; shared with the gate."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="ledgers (default: results)")
    parser.add_argument(
        "--common-items", action="store_true", help="compare the items both have; says how many are left out"
    )
    parser.add_argument(
        "--axis",
        choices=list(FREE),
        help="what the runs differ in (default: setting where the settings differ, else checkpoint); "
        "a checkpoint must share setting, prompt, template and dtype, a model only data, prompt and setting",
    )
    add_allow(parser)


def add_allow(parser: argparse.ArgumentParser) -> None:
    """The option that waives a check of comparability; shared with `icr sweep --until-gate`."""
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=list(WAIVABLE),
        help="waive one check: " + "; ".join(f"{name}: {text}" for name, text in WAIVABLE.items()),
    )


def main(argv: list[str]) -> int:
    """0, or 4 when the two runs are not comparable."""
    parser = argparse.ArgumentParser(
        prog="icr compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", metavar="A", help="run to compare with")
    parser.add_argument("new", metavar="B", help="run to judge")
    add_pairing(parser)
    parser.add_argument("--metric", help="another logged metric in place of each task's headline metric")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="write the differences as a forest plot"
    )
    parser.add_argument(
        "--flips", type=Path, metavar="FILE.md", help="write what flipped, by length and depth"
    )
    parser.add_argument(
        "--samples",
        type=Path,
        nargs="+",
        help="lm_eval output folders: adds questions and answers to --flips",
    )
    parser.add_argument("--limit", type=at_least(0), default=500, help="flipped items listed (default: 500)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if args.limit < 0:
        parser.error("--limit is a number of items, 0 or more")
    base, new = load.find(args.results, args.base), load.find(args.results, args.new)
    joined = pairs.pair(
        base, new, common=args.common_items, allow=args.allow, metric=args.metric, axis=args.axis
    )
    print(reports.render(joined, base, new, as_json=args.json))
    if joined.refusals:
        return 4
    if args.flips:
        _write("flips", args.flips, flips.markdown(joined, base, new, samples=args.samples, limit=args.limit))
    if args.plot:
        drawn = forest.of_comparison(compare.compare(joined), f"{base.label} to {new.label}")
        _write("plot", args.plot, drawn.svg())
    return 0


def _write(what: str, path: Path, text: str) -> None:
    with storage.writing(path, "give another file"):
        path.parent.resolve(strict=True)  # a folder that is not there is a slip of the pen
        storage.write_atomic(path, text.encode())
    print(f"{what}: {path}", file=sys.stderr)
