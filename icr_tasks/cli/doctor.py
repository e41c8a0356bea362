"""`icr doctor`: what works here, why what does not, and the next command to type.

icr doctor                                             # engines, GPUs, extras, data, plugins
icr doctor --engine vllm --data helmet_rag             # exits 1 when one of these cannot be used
icr doctor --judge http://localhost:8001/v1 --json     # is the judge there? as JSON
icr doctor --endpoint http://localhost:8000/v1 --model M
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import orjson

from ..errors import IcrError, install_hint
from . import health
from .health import ENGINES, Finding

_MARK = {True: "ok", False: "no", None: "-"}


def main(argv: list[str]) -> int:
    """0, or 1 when something that was named cannot be used."""
    parser = argparse.ArgumentParser(
        prog="icr doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--engine", action="append", default=[], help="vllm, hf, api or an lm-eval model name: is imported")
    add("--extra", action="append", default=[], help="an extra of icr-tasks: rag, board, judge ...")
    add("--data", action="append", default=[], help="benchmarks, groups or tasks, comma-separated")
    add("--judge", metavar="URL", help="a judge's address")
    add("--judge-model", help="the model the judge must serve")
    add("--endpoint", metavar="URL", help="the address of a served model")
    add("--model", help="the model it must serve")
    add("--json", action="store_true", help="everything as one JSON object")
    args = parser.parse_args(argv)
    if args.model and not args.endpoint or args.judge_model and not args.judge:
        raise IcrError("--model needs --endpoint, and --judge-model needs --judge: the address to ask")

    cards = health.gpus()
    parts = {
        "machine": health.machine(),
        "engines": [health.engine(name, cards, tried=False) for name in ENGINES],
        "extras": health.extras(),
        "data": _data(),
        "plugins": health.plugged(),
    }
    named = _named(args, cards)
    command = _next(parts, named, args)
    bad = [found for found in named if not found.usable]
    if args.json:
        made: dict[str, Any] = {"schema": 1, "gpus": cards}
        made |= {name: [found.record() for found in parts[name]] for name in parts}
        made |= {"named": [found.record() for found in named], "usable": not bad, "next": command}
        sys.stdout.buffer.write(orjson.dumps(made, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        for name, found in parts.items():
            _show(name, found)
            if name == "machine":
                print("\nGPUs\n  " + ("\n  ".join(cards) if cards else "none that a driver shows"))
        _show("asked for", named)
        print(f"\nnext: {command}")
    return int(bool(bad))


def _of(find: Callable[[], Finding], name: str) -> Finding:
    """What `find` finds, an error of its as a finding that cannot be used."""
    try:
        return find()
    except IcrError as error:
        return Finding(name, False, str(error))


def _data() -> list[Finding]:
    try:
        return health.data()
    except IcrError as error:  # ICR_DATA_DIR names no folder
        return [Finding("data", False, str(error))]


def _named(args: argparse.Namespace, cards: list[str]) -> list[Finding]:
    found = [health.engine(name, cards, tried=True) for name in _words(args.engine)]
    needs = health.requirements()
    for name in _words(args.extra):
        if name not in needs:
            raise health.unknown("extra", name, needs)
        found.append(health.extra(name, needs[name]))
    found += [_of(partial(health.named_data, name), name) for name in _words(args.data)]
    if args.judge:
        key = os.environ.get("ICR_JUDGE_API_KEY")
        found.append(_of(lambda: health.served("judge", args.judge, args.judge_model, key), "judge"))
    if args.endpoint:
        found.append(_of(lambda: health.served("endpoint", args.endpoint, args.model), "endpoint"))
    return found


def _words(given: Sequence[str]) -> list[str]:
    return [word.strip() for text in given for word in text.split(",") if word.strip()]


def _next(parts: dict[str, list[Finding]], named: list[Finding], args: argparse.Namespace) -> str:
    """The one command that brings the user on."""
    if bad := next((found for found in [*named, *parts["machine"]] if found.usable is False), None):
        return bad.fix or f"mend {bad.name}: {bad.detail}"
    ready = list(health.ready_tasks())
    wanted = [name if name.startswith("icr_") else f"icr_{name}" for name in _words(args.data)]
    task = next((leaf for name in wanted for leaf in health.leaves(name) if leaf in ready), ready[0])
    if args.endpoint:
        model, address = args.model or "NAME", shlex.quote(health.redact_url(args.endpoint))
        return (
            f"lm_eval --tasks {task} --model icr-api --apply_chat_template --model_args "
            f"model={model},base_url={address},store=answers/"
        )
    tried = [found for found in named if found.name.partition(" ")[0] in ENGINES]
    local = [found for found in parts["engines"] if found.name.startswith(("vllm", "hf"))]
    usable = tried or [found for found in local if found.usable]
    if not usable:
        return install_hint("vllm" if health.gpus() else "hf")
    model = ENGINES[usable[0].name.partition(" ")[0]].models[0]
    return (
        f"lm_eval --tasks {task} --model {model} --model_args pretrained=MODEL --batch_size auto "
        "--apply_chat_template --log_samples --output_path out"
    )


def _show(title: str, found: Sequence[Finding]) -> None:
    if not found:
        return
    print(f"\n{title}" if title != "machine" else title)
    wide = max(len(one.name) for one in found)
    for one in found:
        print(f"  {_MARK[one.usable]:<3} {one.name:<{wide}}  {one.detail}")
        if one.fix and one.usable is not True:
            print(f"      {'':<{wide}}  fix: {one.fix}")
