"""`icr plan --tasks T --settings S,S --margin 2`: tokens, time, dollars and what difference can be seen.

    icr plan --tasks icr_helmet_rag --settings full,rag@16k --margin 2 --dollars-per-hour 2.5
    icr plan --results results --settings full --margin 3       # tokens and variances of your own runs

Before anything is run: the smallest difference each endpoint of the gate can see, which of them no result
could decide, and the cheapest choice of questions and depths that settles the margin.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import orjson

from ..leaderboard.pairs.gate import ALPHA, SUITE_MARGIN
from ..leaderboard.plan import Rates
from ..leaderboard.text.names import plain
from ..sweep import planning
from ..sweep.study import listed
from .amounts import above_zero, amount, at_least
from .gate import _alpha, _points


def main(argv: list[str]) -> int:
    """0; IcrError for unknown tasks or settings."""
    parser = argparse.ArgumentParser(
        prog="icr plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", help="tasks or groups, separated by commas")
    parser.add_argument(
        "--settings",
        action="append",
        help="settings, separated by commas outside of options; may be repeated",
    )
    parser.add_argument("--margin", type=_points, default=SUITE_MARGIN, help="points to settle (default: 2)")
    parser.add_argument("--results", type=Path, help="ledgers to take tokens and variances from")
    parser.add_argument(
        "--tokenizer", metavar="MODEL", help="the evaluated model's: count the tasks' data with it"
    )
    parser.add_argument(
        "--max-model-len",
        type=at_least(1),
        metavar="TOKENS",
        help="the model's window: longer prompts are cut to it",
    )
    parser.add_argument("--alpha", type=_alpha, default=ALPHA, help="one-sided level (default: 0.05)")
    speed = "a second (default: measured in --results, else {:g})"
    parser.add_argument("--prefill", type=above_zero, help="prompt tokens " + speed.format(Rates.prefill))
    parser.add_argument("--decode", type=above_zero, help="answer tokens " + speed.format(Rates.decode))
    parser.add_argument("--dollars-per-hour", type=amount, help="price of the machine")
    parser.add_argument("--price-in", type=amount, help="dollars a million prompt tokens")
    parser.add_argument("--price-out", type=amount, help="dollars a million answer tokens")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    named = [n for n in (args.prefill, args.decode) if n is not None]
    rates = Rates(
        args.prefill or Rates.prefill,
        args.decode or Rates.decode,
        args.dollars_per_hour,
        args.price_in,
        args.price_out,
        given=bool(named),
    )
    made = planning.plan(
        [t for t in (args.tasks or "").split(",") if t],
        listed(args.settings or ["full"]),
        margin=args.margin,
        results=args.results,
        rates=rates,
        alpha=args.alpha,
        tokenizer=args.tokenizer,
        max_model_len=args.max_model_len,
    )
    if args.json:
        body = {**planning.data(made), "spread": {n: vars(made.prior_used[n]) for n in made.names}}
        print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(plain(line) for line in str(made).splitlines()))
    return 0
