"""`icr gate CANDIDATE --baseline main`: is the new checkpoint worse than the pinned one, beyond noise?

    icr gate results-new --baseline main
    icr gate 77b02e --baseline 3f9a1c --margin 3 --allow-inconclusive
    icr gate results-again --baseline results --aa        # the same run twice: how large is noise?

Exit code: 0 PASS, 1 REGRESSED, 2 usage error or crash, 3 INCONCLUSIVE (0 with --allow-inconclusive), 4 NOT
COMPARABLE.
Writes gate.md, gate.json and gate.xml (JUnit); appends gate.md to $GITHUB_STEP_SUMMARY when that is set.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import orjson

from ..errors import IcrError
from ..leaderboard.ledgers import load
from ..leaderboard.pairs import baseline, reports
from ..leaderboard.pairs import gate as rerun
from ..leaderboard.pairs.axes import CHECKPOINT
from ..leaderboard.pairs.gate import ALPHA, BENCHMARK_MARGIN, SUITE_MARGIN, Verdict, gate, refused
from ..leaderboard.pairs.joined import pair
from ..leaderboard.text.names import plain
from .compare import add_pairing


def add_judging(parser: argparse.ArgumentParser) -> None:
    """Options of the test; shared with `icr baseline set`."""
    parser.add_argument(
        "--baselines", type=Path, default=Path("baselines"), help="pinned baselines (default: baselines)"
    )
    parser.add_argument(
        "--margin", type=_points, default=SUITE_MARGIN, help="points the suite may lose (default: 2)"
    )
    parser.add_argument(
        "--benchmark-margin",
        type=_points,
        default=BENCHMARK_MARGIN,
        help="points a benchmark may lose (default: 5)",
    )
    parser.add_argument(
        "--margin-for",
        action="append",
        default=[],
        metavar="BENCHMARK=POINTS",
        type=_named,
        help="margin of one benchmark",
    )
    parser.add_argument(
        "--alpha", type=_alpha, default=ALPHA, help="one-sided level (default: 0.05; nightly runs: 0.01)"
    )


def judge(args: argparse.Namespace, base: load.Run, new: load.Run, *, strict: bool = True) -> Verdict:
    """The verdict under the command line's options."""
    if base.folder.resolve() == new.folder.resolve():
        text = f"the candidate is the baseline itself ({new.folder}); nothing was compared"
        return refused([text], alpha=args.alpha, strict=strict)
    joined = pair(
        base,
        new,
        common=args.common_items,
        allow=args.allow,
        whole=not args.common_items,
        axis=args.axis or CHECKPOINT,
    )
    named = dict(args.margin_for)
    return gate(
        joined,
        margin=args.margin,
        benchmark_margin=args.benchmark_margin,
        margins=named,
        alpha=args.alpha,
        strict=strict,
    )


def main(argv: list[str]) -> int:
    """The verdict's exit code."""
    parser = argparse.ArgumentParser(
        prog="icr gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "candidate", nargs="+", help="run folder, folder with one run, or fingerprint; several with --aa"
    )
    parser.add_argument("--baseline", required=True, help="a name set with `icr baseline set`, or a run")
    add_pairing(parser)
    add_judging(parser)
    undecided = parser.add_mutually_exclusive_group()
    undecided.add_argument(
        "--allow-inconclusive", action="store_true", help="INCONCLUSIVE exits with 0 in place of 3"
    )
    undecided.add_argument("--strict", action="store_true", help="INCONCLUSIVE exits with 3 (the default)")
    parser.add_argument(
        "--aa", action="store_true", help="measure re-run noise: candidates repeat the baseline's run"
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("gate"), help="folder of the reports (default: gate)"
    )
    parser.add_argument("--json", action="store_true", help="print gate.json in place of the block")
    args = parser.parse_args(argv)
    if args.aa:
        return _noise(args)
    if len(args.candidate) > 1:
        parser.error("one candidate at a time; several only with --aa")
    base, new, first = None, None, None
    try:
        new = load.find(args.results, args.candidate[0])
        base, origin = _baseline(args, new)
        found = judge(args, base, new, strict=not args.allow_inconclusive)
        if origin and found.comparison:
            first = _against_first(args, origin, new, found)
    except IcrError as error:
        if error.exit_code != 4:
            raise
        found = refused([str(error)], alpha=args.alpha, strict=not args.allow_inconclusive)
    labels = (
        f"{args.baseline}: {base.label}" if base else args.baseline,
        new.label if new else args.candidate[0],
    )
    reports.write(args.out, found, base, new, reports.markdown(found, *labels, first), first)
    if args.json:
        _print_json(reports.data(found, base, new, first))
    else:
        print(reports.terminal(found, *labels, first))
    for note in found.notes:
        print(f"note: {plain(note)}", file=sys.stderr)
    return found.code


def _baseline(args: argparse.Namespace, new: load.Run) -> tuple[load.Run, dict[str, Any] | None]:
    """The baseline's run, and its first pin when that is another one."""
    name = args.baseline
    if "/" not in name and baseline.path_of(args.baselines, name).is_file():
        pin = baseline.pinned(args.baselines, name, new)
        run = baseline.resolve(args.results, vars(pin), name)
        return run, pin.first if pin.first["items_sha256"] != pin.items_sha256 else None
    try:
        return load.find(args.results, name), None
    except IcrError as error:
        known = (
            ", ".join(p.stem for p in sorted(args.baselines.glob("*.json")))
            or "none; `icr baseline set NAME RUN`"
        )
        raise IcrError(f"no baseline {name!r}: {error} Baselines in {args.baselines}: {known}") from error


def _against_first(
    args: argparse.Namespace, origin: dict[str, Any], new: load.Run, found: Verdict
) -> Verdict | None:
    try:
        return judge(args, baseline.resolve(args.results, origin, f"{args.baseline} (first)"), new)
    except IcrError as error:
        found.notes.append(str(error))
        return None


def _noise(args: argparse.Namespace) -> int:
    runs = [load.find(args.results, c) for c in args.candidate]
    base, _ = _baseline(args, runs[0])
    found = []
    for run in runs:
        joined = pair(base, run, common=args.common_items, allow=args.allow)
        reason = rerun.not_the_same(base, run) or next((str(r) for r in joined.refusals), None)
        if reason:
            raise IcrError(f"NOT COMPARABLE: {reason}", exit_code=4)
        found.append(rerun.noise(joined))
    if args.json:
        _print_json({"schema": 1, "baseline": base.fingerprint, "repetitions": [vars(one) for one in found]})
    else:
        print(rerun.render(found, plain(base.label)))
    return 0


def _print_json(data: dict[str, Any]) -> None:
    print(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


def _points(text: str) -> float:
    value = float(text) / 100
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100 points")
    return value


def _alpha(text: str) -> float:
    value = float(text)
    if not 0 < value < 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 0.5")
    return value


def _named(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not BENCHMARK=POINTS, e.g. helmet_rag=4")
    return name, _points(value)
