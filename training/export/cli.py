"""`icr train export DATA --to verifiers|trl-env|verl -o OUT`: rows and rewards for another training stack.

icr train export data --to verifiers --reward id -o icr-env       # a package for prime-rl and the environments hub
icr train export data --to trl-env --reward ao -o data-search     # multi-turn: the model searches the passages itself
icr train export data --to verl --reward ao -o data-verl --model Qwen/Qwen2.5-7B-Instruct-1M
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from icr_tasks.errors import IcrError, unknown

from ..rewards import registry
from . import trl_env, verifiers, verl

Target = Callable[[argparse.Namespace], str]
TARGETS: dict[str, Target] = {"verifiers": verifiers.write, "trl-env": trl_env.write, "verl": verl.export}


def main(argv: list[str]) -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(
        prog="icr train export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a folder made by `icr train data`")
    parser.add_argument("--to", required=True, help=", ".join(TARGETS))
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--reward", default="ao", help="ao, id, idc, idq (verl: judge and hybrid too)")
    parser.add_argument(
        "--preset",
        default="paper",
        choices=tuple(registry.PRESETS),
        help="the reward as the paper prints it, or as its code has it",
    )
    parser.add_argument("--limit", type=int, help="rows at most of each file")
    parser.add_argument("--name", default="icr-retrieval", help="name of the package, for verifiers")
    parser.add_argument(
        "--model",
        default="",
        help="verl: the tokenizer that prompts are fitted with; verl and verifiers: whose template may begin the thought",
    )
    parser.add_argument("--max-prompt-length", type=int, default=32768, help="verl: tokens")
    args = parser.parse_args(argv)
    if args.to not in TARGETS:
        raise unknown("export target", args.to, TARGETS)
    if args.reward not in registry.NAMES:
        raise unknown("reward", args.reward, registry.NAMES)
    if args.reward in registry.JUDGED and args.to != "verl":
        raise IcrError(
            f"reward {args.reward!r} asks a judge, which --to {args.to} has no place for; use ao, id, idc "
            "or idq"
        )
    print(TARGETS[args.to](args))
    return 0
