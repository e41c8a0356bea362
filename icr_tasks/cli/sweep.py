"""`icr sweep`: models x settings x prompts x tasks from one file. Run it again to go on after anything.

icr sweep study.yaml --dry-run           # the matrix, token counts, estimated prefill; nothing runs
icr sweep study.yaml                     # runs what is not done; Ctrl-C and kill lose only requests in flight
icr sweep study.yaml --jobs 4            # four engines at once (four GPUs); also: --executor slurm
icr sweep study.yaml --executor ray --jobs 16       # sixteen vLLM replicas of Ray Data LLM, on any nodes
icr sweep study.yaml --shard 3/8         # a share of the items of every cell; the last shard scores them all
icr sweep study.yaml --merge [FOLDER...] # join shards that wrote folders of their own, or whose last was killed
icr sweep study.yaml --only rag          # cells whose name or fingerprint contains the text
icr sweep study.yaml --until-gate main   # a fifth of the questions at a time, until the gate is decided
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import IcrError
from .amounts import above_zero, at_least
from .compare import add_allow
from .gate import add_judging


def main(argv: list[str]) -> int:
    """0 when everything is done, 1 when a cell failed (the others are kept), 2 for bad input, 130 when
    interrupted."""
    parser = argparse.ArgumentParser(
        prog="icr sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, nargs="?", help="the study's YAML file (docs/sweep.md)")
    parser.add_argument("-o", "--out", type=Path, help="study folder (default: the file's `out`)")
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="print the matrix and its cost, run nothing"
    )
    parser.add_argument(
        "--sample", type=at_least(0), default=8, help="dry run: items built per cell (0: all; default 8)"
    )
    parser.add_argument(
        "--rate", type=above_zero, help="dry run: prefill tokens a second, where nothing was measured"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="only cells whose name or fingerprint contains TEXT; repeat to narrow",
    )
    parser.add_argument("--shard", metavar="I/N", help="answer share I of N of the items (docs/scale.md)")
    parser.add_argument(
        "--merge",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="join the shards in the study's folder and in these, and score them",
    )
    parser.add_argument("--until-gate", metavar="BASELINE", help="stop when the gate against it is decided")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="ledgers of the baseline's runs, and of earlier runs for a dry run's times (default: results)",
    )
    add_judging(parser)
    add_allow(parser)
    parser.add_argument(
        "--executor",
        default="local",
        choices=("local", "slurm", "ray"),
        help="where engines run (docs/sweep.md)",
    )
    parser.add_argument("--jobs", type=at_least(1), default=1, help="engines at once (default 1)")
    args = parser.parse_args(argv)
    if args.study is None and args.merge:  # icr sweep --merge study.yaml FOLDER...
        args.study = args.merge.pop(0)
    if args.study is None:
        parser.error("name the study's YAML file")
    _one_way(args)

    from ..sweep import cells, finish, shards, study

    found = replace(study.load(args.study, args.out), typed=tuple(argv))
    chosen = [
        c for c in cells.matrix(found) if all(t in c.name or c.fingerprint.startswith(t) for t in args.only)
    ]
    if not chosen:
        raise IcrError(
            f"no cell of {args.study} matches --only {' '.join(args.only)}; `icr status` lists them"
        )
    if args.dry_run:
        from ..sweep import plan

        rows = plan.plan(found, chosen, args.sample, args.rate, args.results)
        print(plan.table(rows, args.rate, found.out / "answers"))
        return 0
    try:
        if args.until_gate:
            if args.executor != "local" or args.jobs > 1:
                raise IcrError("--until-gate runs in this process: leave --executor and --jobs out")
            from ..sweep import until

            gate = until.Gate(
                args.until_gate,
                args.baselines,
                args.results,
                args.margin,
                args.benchmark_margin,
                dict(args.margin_for),
                args.alpha,
                tuple(args.allow),
            )
            return until.run(found, chosen, gate)
        if args.merge is not None:
            return finish.merge(found, chosen, args.merge, args.jobs)
        if args.shard is not None:
            return finish.shard(found, chosen, shards.Shard.parse(args.shard), args.jobs)
        return finish.run(found, chosen, args.executor, args.jobs)
    except KeyboardInterrupt:
        print(f"interrupted: finished answers are kept; go on with: {found.again()}", file=sys.stderr)
        return 130


def _one_way(args: argparse.Namespace) -> None:
    """Raise IcrError for ways to run a study that exclude each other."""
    ways = {"--shard": args.shard, "--merge": args.merge is not None, "--until-gate": args.until_gate}
    ways |= {"--dry-run": args.dry_run, "--executor": args.executor != "local"}
    asked = [name for name, value in ways.items() if value]
    if len(asked) > 1 and {"--shard", "--merge"} & set(asked):
        raise IcrError(f"{asked[0]} and {asked[1]} exclude each other; give one of them")
