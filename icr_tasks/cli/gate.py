"""`icr gate CANDIDATE --baseline main`: is the new checkpoint worse than the pinned one, beyond noise?

    icr gate results-new --baseline main
    icr gate 77b02e --baseline 3f9a1c --margin 3 --allow-inconclusive
    icr gate results-new --baseline main --record                # counts the look: 50 checkpoints, one alpha
    icr gate results-new --baseline main --confirm results-again # REGRESSED only when seen twice
    icr gate results-again --baseline results --aa        # the same run twice: how large is noise?

A folder with runs under several settings is judged in one call, each against the baseline's run of its
setting; a regression then needs a p below alpha over the number of runs.

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
from ..leaderboard.ledgers import load, todo
from ..leaderboard.ledgers.ledger import run_files
from ..leaderboard.pairs import baseline, reports, several
from ..leaderboard.pairs import gate as rerun
from ..leaderboard.pairs.axes import CHECKPOINT
from ..leaderboard.pairs.gate import (
    ALPHA,
    BENCHMARK_MARGIN,
    REGRESSED,
    SEVERITY,
    SUITE_MARGIN,
    Verdict,
    gate,
    refused,
)
from ..leaderboard.pairs.joined import pair
from ..leaderboard.pairs.looks import at_level, confirmed, spent
from ..leaderboard.text.names import plain
from .amounts import at_least, number
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
    parser.add_argument("candidate", nargs="+", help="run folders, folders of runs, or fingerprints")
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
        "--record",
        action="store_true",
        help="count this look in the baseline file and spend its share of alpha",
    )
    parser.add_argument(
        "--look", type=at_least(1), metavar="N", help="judge as look number N, whatever is recorded"
    )
    parser.add_argument(
        "--confirm",
        nargs="?",
        const="",
        metavar="RUN",
        help="REGRESSED only when RUN, a second evaluation of the candidate, is too; without RUN: "
        "INCONCLUSIVE "
        "and the command that makes it",
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("gate"), help="folder of the reports (default: gate)"
    )
    parser.add_argument("--json", action="store_true", help="print gate.json in place of the block")
    args = parser.parse_args(argv)
    if args.aa:
        return _noise(args)
    runs = _candidates(args)
    answers = [_judged(args, run, spec, len(runs)) for run, spec in runs]
    worst = max(answers, key=lambda one: SEVERITY.index(one.found.verdict)).found
    for one, own in zip(answers, several.folders(answers), strict=True):
        text = reports.markdown(one.found, *one.labels, one.first)
        folder = args.out if len(answers) == 1 else args.out / own
        reports.write(folder, one.found, one.base, one.new, text, one.first, summary=len(answers) == 1)
    if len(answers) > 1:
        several.write(args.out, answers, worst)
    if args.json:
        _print_json(several.data(answers, worst) if len(answers) > 1 else reports.data(*answers[0].data))
    else:
        for one in answers:
            print(reports.terminal(one.found, *one.labels, one.first))
        if len(answers) > 1:
            print(several.terminal(answers, worst))
    for one in answers:
        for note in one.found.notes:
            print(f"note: {plain(note)}", file=sys.stderr)
    return worst.code


def _candidates(args: argparse.Namespace) -> list[tuple[load.Run | None, str]]:
    """The runs to judge, each once, with the words that named them: all runs of a folder that holds several."""
    found: list[tuple[load.Run | None, str]] = []
    for spec in dict.fromkeys(args.candidate):
        path = Path(spec)
        inside = path.is_dir() and not (path / "run.json").is_file()
        if inside and len(runs := load.load(path) if run_files(path) else []) > 1:
            found += [(run, str(run.folder)) for run in runs]
            continue
        try:
            found.append((load.find(args.results, spec), spec))
        except IcrError as error:
            if error.exit_code != 4:
                raise
            found.append((None, f"{spec}\n{error}"))
    places = {run.folder.resolve(): (run, spec) for run, spec in reversed(found) if run}
    return [(run, spec) for run, spec in found if run is None or places[run.folder.resolve()][0] is run]


def _judged(args: argparse.Namespace, new: load.Run | None, spec: str, several_runs: int) -> several.Answer:
    """One candidate against its baseline, at the level that looks and the number of runs leave it."""
    base, first, strict = None, None, not args.allow_inconclusive
    try:
        if new is None:
            spec, _, why = spec.partition("\n")
            raise IcrError(why, exit_code=4)
        base, origin = _baseline(args, new)
        found = judge(args, base, new, strict=strict)
        found = _levelled(args, found, new, several_runs)
        if args.confirm is not None and found.verdict == REGRESSED:
            found = _confirmed(args, found, base, new)
        if origin and found.comparison:
            first = _against_first(args, origin, new, found)
        if args.record and found.comparison:
            baseline.record(args.baselines, args.baseline, new, found.verdict)
    except IcrError as error:
        if error.exit_code != 4:
            raise
        found = refused([str(error)], alpha=args.alpha, strict=strict)
    labels = (f"{args.baseline}: {base.label}" if base else args.baseline, new.label if new else spec)
    return several.Answer(found, base, new, first, labels)


def _levelled(args: argparse.Namespace, found: Verdict, new: load.Run, several_runs: int) -> Verdict:
    """The verdict at the level of this look (--record, --look) over the number of runs."""
    if not found.comparison:
        return found
    look = None
    pinned = baseline.is_set(args.baselines, args.baseline)
    if args.record and not pinned:
        raise IcrError(
            f"--record counts looks in a baseline file; set one with `icr baseline set {args.baseline} RUN`"
        )
    if pinned:
        pin = baseline.pinned(args.baselines, args.baseline, new)
        if args.record or args.look:
            look = args.look or baseline.look_of(pin, new)
        elif pin.looks:
            before = (
                "1 look at this baseline was"
                if len(pin.looks) == 1
                else f"{len(pin.looks)} looks at this baseline were"
            )
            found.notes.append(
                f"{before} recorded; without --record this one is judged as if it were the only one"
            )
    elif args.look:
        look = args.look
    level = (spent(look, args.alpha) if look else args.alpha) / several_runs
    if level >= args.alpha:
        return found
    reasons = [f"look {look}"] if look else []
    reasons += [f"{several_runs} runs"] if several_runs > 1 else []
    found.notes.append(
        f"{', '.join(reasons)}: a regression needs p below {level:.2g}, in place of {args.alpha:g}"
    )
    return at_level(found, level, f"lower, but not at {level:.2g} ({', '.join(reasons)})")


def _confirmed(args: argparse.Namespace, found: Verdict, base: load.Run, new: load.Run) -> Verdict:
    """REGRESSED only where a second evaluation of the same checkpoint says so too; without one, how to make
    it."""
    if not args.confirm:
        tasks = sorted(new.tasks)
        found.notes.append(
            f"to confirm, evaluate again and give the results to --confirm: {todo.command(new.head, tasks)}"
        )
        return confirmed(found, None)
    again = (
        _again(Path(args.confirm), new)
        if Path(args.confirm).is_dir()
        else load.find(args.results, args.confirm)
    )
    if again.folder.resolve() == new.folder.resolve():
        raise IcrError(
            f"--confirm {args.confirm} is the candidate itself; evaluate it again into another folder"
        )
    if (again.model, again.setting, again.prompt) != (new.model, new.setting, new.prompt):
        raise IcrError(f"--confirm {args.confirm} is {again.label}, not a second evaluation of {new.label}")
    if why := rerun.once(new, again):
        raise IcrError(
            f"--confirm {args.confirm} is no second evaluation, {why}; evaluate again, with another answer store"
        )
    second = judge(args, base, again)
    if not second.comparison:
        raise IcrError(f"--confirm {args.confirm} cannot be compared with the baseline: {second.reason}")
    both = pair(new, again, allow=args.allow)
    if not both.refusals and both.same.all():
        found.notes.append(
            "the second evaluation gave the same answers, byte for byte: it confirms that they can be made again, "
            "on other questions nothing"
        )
    return confirmed(found, second)


def _again(folder: Path, new: load.Run) -> load.Run:
    """The run of a folder that has the candidate's model, setting and prompt."""
    wanted = (new.model, new.setting, new.prompt)
    runs = [run for run in load.load(folder) if (run.model, run.setting, run.prompt) == wanted]
    if len(runs) != 1:
        raise IcrError(f"{folder} holds {len(runs)} runs like {new.label}; name one by its folder")
    return runs[0]


def _baseline(args: argparse.Namespace, new: load.Run) -> tuple[load.Run, dict[str, Any] | None]:
    """The baseline's run, and its first pin when that is another one."""
    name = args.baseline
    if baseline.is_set(args.baselines, name):
        pin = baseline.pinned(args.baselines, name, new)
        run = baseline.resolve(args.results, vars(pin), name)
        return run, pin.first if pin.first["items_sha256"] != pin.items_sha256 else None
    if Path(name).is_dir() and len(run_files(Path(name))) > 1:
        return _of_setting(Path(name), new), None
    try:
        return load.find(args.results, name), None
    except IcrError as error:
        known = (
            ", ".join(p.stem for p in sorted(args.baselines.glob("*.json")))
            or "none; `icr baseline set NAME RUN`"
        )
        raise IcrError(f"no baseline {name!r}: {error}. Baselines in {args.baselines}: {known}") from error


def _of_setting(folder: Path, new: load.Run) -> load.Run:
    """The run of a folder of baselines that has the candidate's setting and prompt."""
    runs = [r for r in load.load(folder) if (r.setting, r.prompt) == (new.setting, new.prompt)]
    if len(runs) != 1:
        text = (
            f"{folder} holds {len(runs)} runs of {new.setting} ({new.prompt}); name the baseline by its run"
        )
        raise IcrError(text, exit_code=4)
    return runs[0]


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
    value = number(text) / 100
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100 points")
    return value


def _alpha(text: str) -> float:
    value = number(text)
    if not 0 < value < 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 0.5")
    return value


def _named(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not BENCHMARK=POINTS, e.g. helmet_rag=4")
    return name, _points(value)
