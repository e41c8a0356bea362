"""`icr baseline set NAME RUN` and `icr baseline show [NAME]`: what the gate compares with.

    icr baseline set main 3f9a1c
    icr baseline set main 77b02e --force --why "new tokenizer, reviewed in PR 12"
    icr baseline show

`set` needs a complete run; a later one must PASS against the current and against the first baseline. Commit
the file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import orjson

from ..errors import IcrError
from ..leaderboard.ledgers import load
from ..leaderboard.ledgers.ledger import run_files
from ..leaderboard.pairs import baseline
from ..leaderboard.pairs.gate import CODES, INCONCLUSIVE, NOT_COMPARABLE, PASS, REGRESSED
from ..leaderboard.text.escape import markdown
from ..leaderboard.text.names import plain
from ..sweep import planning
from .compare import add_pairing
from .gate import add_judging, judge


def main(argv: list[str]) -> int:
    """0, or the exit code of the verdict that kept a candidate out."""
    parser = argparse.ArgumentParser(
        prog="icr baseline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    setter = commands.add_parser("set", help="pin a run")
    setter.add_argument("name", help="what the gate will call it")
    setter.add_argument("run", help="run folder, folder with one run, or fingerprint")
    add_pairing(setter)
    add_judging(setter)
    setter.add_argument("--force", action="store_true", help="pin it although it does not PASS; needs --why")
    setter.add_argument("--why", help="reason, kept in the file")
    shower = commands.add_parser("show", help="list what is pinned")
    shower.add_argument("name", nargs="?", help="only this one")
    shower.add_argument("--baselines", type=Path, default=Path("baselines"), help="their folder")
    shower.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if args.command == "show":
        return _show(args)
    if args.force and not (args.why or "").strip():
        parser.error("--force needs --why TEXT")
    return _set(args)


def _set(args: argparse.Namespace) -> int:
    run = load.find(args.results, args.run)
    verdict, reason = _verdict(args, run)
    if verdict != PASS and not args.force:
        text = f"{verdict} {reason}; pin it all the same with --force --why TEXT"
        raise IcrError(f"baseline {args.name} stays as it is: {text}", exit_code=CODES[verdict])
    for end in planning.undecidable(run, args.alpha):
        print(f"note: {end}: no result could be called a regression at alpha {args.alpha:g}", file=sys.stderr)
    pin = baseline.store(args.baselines, args.name, run, verdict=verdict, why=args.why)
    path = baseline.path_of(args.baselines, args.name)
    if run.folder.resolve() not in (path.parent.resolve() for path in run_files(args.results)):
        print(
            f"note: {run.folder} is not below {args.results}, where icr gate looks for it: name the folder that holds "
            "it with --results",
            file=sys.stderr,
        )
    print(
        f"baseline {args.name}, {pin.setting} ({pin.prompt}): {plain(run.label)} [{verdict}]; commit {path}"
    )
    return 0


def _verdict(args: argparse.Namespace, run: load.Run) -> tuple[str, str]:
    """Worst verdict against the current and the first baseline; a first baseline only has to be complete."""
    short = [name for name, task in run.tasks.items() if not task.complete]
    if short:
        return NOT_COMPARABLE, f"the run is partial: {', '.join(short[:5])}"
    try:
        pin = baseline.pinned(args.baselines, args.name, run)
    except IcrError:
        if baseline.path_of(args.baselines, args.name).is_file():
            baseline.read(args.baselines, args.name)  # a broken file is an error, a missing setting is not
        return PASS, "first baseline"
    found = []
    for entry, which in ((vars(pin), "the current baseline"), (pin.first, "the first baseline")):
        try:
            answer = judge(args, baseline.resolve(args.results, entry, args.name), run)
            found.append((answer.verdict, f"against {which}: {answer.reason}"))
        except IcrError as error:
            found.append((NOT_COMPARABLE, f"against {which}: {error}"))
    severity = (PASS, INCONCLUSIVE, REGRESSED, NOT_COMPARABLE)
    return max(found, key=lambda pair: severity.index(pair[0]))


def _show(args: argparse.Namespace) -> int:
    names = [args.name] if args.name else sorted(p.stem for p in args.baselines.glob("*.json"))
    pins = {name: baseline.read(args.baselines, name) for name in names}
    if args.json:
        found = {name: [vars(pin) for pin in listed] for name, listed in pins.items()}
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return 0
    if not pins:
        print(f"no baselines in {args.baselines}; `icr baseline set main RUN` pins one")
        return 0
    print("| baseline | setting | prompt | model | fingerprint | set | first | why |")
    print("|---|---|---|---|---|---|---|---|")
    for name, listed in pins.items():
        for pin in listed:
            why = pin.history[-1].get("why") or ""
            cells = (
                name,
                pin.setting,
                pin.prompt,
                pin.model,
                pin.fingerprint,
                pin.set,
                pin.first["fingerprint"],
                why,
            )
            print(f"| {' | '.join(map(markdown, cells))} |")
    return 0
