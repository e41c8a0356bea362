"""`icr publish RESULTS --to DIR`: a static site of the board for Pages or any other host.

    icr publish results/ --to site/

index.html is the board; runs/ has a page a run, data/ the items and results as parquet, changes.md what came
and went since the last call. A tree in which `icr check` finds a problem is not published. Exit code 0, or 2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..leaderboard.publish import publish
from ..leaderboard.text.names import plain
from .amounts import at_least


def main(argv: list[str]) -> int:
    """Returns the documented exit code; raises IcrError where nothing could be published."""
    parser = argparse.ArgumentParser(
        prog="icr publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "results", type=Path, nargs="?", default=Path("results"), help="ledgers (default: results)"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder of the site")
    parser.add_argument(
        "--samples", type=Path, nargs="+", metavar="OUT", help="lm_eval output: texts for the page"
    )
    parser.add_argument(
        "--html-items",
        type=at_least(0),
        default=20000,
        metavar="N",
        help="items in the page, all cells together",
    )
    args = parser.parse_args(argv)
    if args.html_items < 0:
        parser.error("--html-items is a number of items, 0 or more")
    site = publish(args.results, args.to, items=args.html_items, samples=args.samples)
    for line in site.changes:
        print(plain(line))
    print(f"{len(site.files)} files in {args.to}; open {args.to / 'index.html'}", file=sys.stderr)
    return 0
