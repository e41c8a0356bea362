"""`icr export FORMAT RESULTS -o OUT`: ledgers in the formats that others read.

    icr export eee results/ -o out --samples OUT --organization "My lab"    # every_eval_ever
    icr export hf results/ -o out --model base=org/base --dataset synth=org/synth
    icr export parquet results/ -o out        # items.parquet, results.parquet
    icr export latex results/ -o out          # board.tex

Exit code 0, or 2 when something had to be left out (it is named; the rest is written).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import storage
from ..errors import IcrError
from ..leaderboard.export._source import Source, load_texts
from ..leaderboard.text.names import plain
from ..registry import EXPORTS


def main(argv: list[str]) -> int:
    """Returns the documented exit code."""
    parser = argparse.ArgumentParser(
        prog="icr export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("format", metavar="FORMAT", help=f"one of {', '.join(EXPORTS)}")
    parser.add_argument(
        "results", type=Path, nargs="?", default=Path("results"), help="ledgers (default: results)"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=OWNER/NAME",
        help="a model's id on the hub (repeatable)",
    )
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="BENCHMARK=OWNER/NAME",
        help="a data set's id on the hub",
    )
    parser.add_argument("--organization", default="", help="who ran the evaluations")
    parser.add_argument("--url", default="", help="where they are published")
    parser.add_argument(
        "--relationship",
        choices=["first_party", "third_party", "collaborative", "other"],
        default="other",
        help="of the evaluator to the model",
    )
    parser.add_argument(
        "--samples", type=Path, nargs="+", metavar="OUT", help="lm_eval output: texts of the items"
    )
    args = parser.parse_intermixed_args(argv)  # the folder may stand behind options
    export = EXPORTS[args.format]  # raises for an unknown name
    source = Source(
        args.results,
        _pairs("--model", args.model),
        _pairs("--dataset", args.dataset),
        args.organization,
        args.relationship,
        args.url,
        load_texts(args.samples) if args.samples else {},
    )
    with storage.writing(args.out, "choose another folder with -o"), storage.making(args.out):
        written = export(source, args.out)
    for path in written:
        print(path)
    for message in dict.fromkeys(source.skipped):
        print(f"icr export: left out: {plain(message)}", file=sys.stderr)
    return 2 if source.skipped else 0


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    found = {}
    for pair in given:
        name, sign, value = pair.rpartition("=")
        if not (sign and name and value):
            raise IcrError(f"{option} {pair}: write NAME=OWNER/NAME")
        found[name] = value
    return found
