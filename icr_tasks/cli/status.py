"""`icr status`: what a study has done, what is partial, missing, stale or failed, and the command for each
gap.

icr status study.yaml
icr status study.yaml --check      # exit 1 while anything is not done
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import orjson


def main(argv: list[str]) -> int:
    """Returns 0; with --check 1 while a cell is not done."""
    parser = argparse.ArgumentParser(
        prog="icr status", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="the study's YAML file")
    parser.add_argument("-o", "--out", type=Path, help="study folder (default: the file's `out`)")
    parser.add_argument("--json", action="store_true", help="one JSON list, a cell an entry")
    parser.add_argument("--check", action="store_true", help="exit 1 while a cell is not done")
    args = parser.parse_args(argv)

    from ..sweep import records, study

    found = records.states(study.load(args.study, args.out))
    if args.json:
        sys.stdout.buffer.write(orjson.dumps(records.as_json(found), option=orjson.OPT_INDENT_2) + b"\n")
    else:
        print(records.status_table(found))
    return int(args.check and any(s.state != "done" for s in found))
