"""`icr COMMAND ...`: one entry per command; modules load only when their command runs.

A new command is one line in COMMANDS. Each target is `main(argv: list[str]) -> int | None`.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from importlib import import_module

from ..credentials import redact_text
from ..errors import NO_SPACE, IcrError, install_hint, unknown

# What a shell reports of a program that was writing to a closed pipe, and of one that Ctrl-C ended.
BROKEN_PIPE, INTERRUPTED = 141, 130
# What a file system answers where a path may not be read or written, or is a file in place of a folder, or the reverse.
_PLACES = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)

# command -> ("package.module:function", one-line help). Targets starting with "." are relative to icr_tasks.
COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": (".cli.doctor:main", "what works here, why what does not, and the next command to type"),
    "data": (".cli.data:main", "fetch and verify benchmark data"),
    "lm-eval": (".cli.lm_eval:main", "run lm_eval with our tasks and models, without start-up hook"),
    "tasks-path": (".cli.lm_eval:tasks_path", "print the folder for lm_eval --include_path"),
    "demo": (".cli.demo:main", "a real small model under four settings, on this machine, in minutes"),
    "sweep": (".cli.sweep:main", "models x settings x prompts x tasks from one file, resumable"),
    "status": (".cli.status:main", "what a study has done, what is missing, and the command for each gap"),
    "score": (".cli.score:main", "score anybody's predictions, no model needed"),
    "judge": (".cli.judge:main", "serve an LLM judge, try one, read its raw replies"),
    "agreement": (".cli.agreement:main", "our answer metrics against human correctness labels"),
    "prepare": (".cli.prepare:main", "chunk, embed and retrieve ahead for rag@k settings"),
    "rank": (".cli.rank:main", "how well a model's attention ranks its documents"),
    "collect": (".leaderboard.ledgers.collect:main", "turn lm-eval output into ledgers and print the table"),
    "board": (".leaderboard.board.build:main", "ledgers -> tables, plots and one HTML page, with error bars"),
    "publish": (".cli.publish:main", "a static site of the board: pages, data, what changed"),
    "export": (".cli.export:main", "ledgers as every_eval_ever, Hugging Face, parquet or LaTeX"),
    "compare": (".cli.compare:main", "two runs item by item: differences with error bars, and what flipped"),
    "plan": (".cli.plan:main", "what an evaluation can see and costs, before it is run"),
    "gate": (".cli.gate:main", "PASS, REGRESSED, INCONCLUSIVE or NOT COMPARABLE, for CI"),
    "baseline": (".cli.baseline:main", "pin the run the gate compares with"),
    "check": (".cli.check:main", "validate a results tree before it is merged"),
    "train": (".training.cli:main", "training data, SFT, GRPO, evaluation of checkpoints"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; an IcrError becomes one line on stderr and its exit code."""
    args = sys.argv[1:] if argv is None else argv
    _streams()
    if args and args[0] in ("-V", "--version"):
        from .. import __version__

        print(f"icr-tasks {__version__}")
        return 0
    status = BROKEN_PIPE
    try:
        if not args or args[0] in ("-h", "--help"):
            print("usage: icr COMMAND [options]\n")
            for name, (_, text) in COMMANDS.items():
                print(f"  {name:<12} {text}")
            print("\nicr COMMAND --help shows each command's options")
            status = 0 if args else 2
        elif args[0] not in COMMANDS:
            raise unknown("command", args[0], COMMANDS)
        else:
            module, _, function = COMMANDS[args[0]][0].partition(":")
            status = getattr(import_module(module, "icr_tasks"), function)(args[1:]) or 0
        sys.stdout.flush()  # here, where a closed pipe is no error, and not when the interpreter ends
        return status
    except IcrError as error:
        print(f"icr: error: {redact_text(str(error))}", file=sys.stderr)
        return error.exit_code
    except (
        BrokenPipeError
    ):  # `icr ... | head` closed the pipe: no message, and never the 0 of a gate that passed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return status
    except KeyboardInterrupt:  # what takes long says itself how to go on
        print(f"\nicr: `icr {args[0]}` was interrupted: run it again", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        said = _refused(args[0], error)
        sys.stderr.write(redact_text(said or traceback.format_exc()))
        return 2
    except ModuleNotFoundError as error:
        extras = _extras(error.name or "")
        if not extras:
            sys.stderr.write(redact_text(traceback.format_exc()))
            return 2
        print(
            f"icr: error: `icr {args[0]}` needs the package {error.name}, which is not installed: "
            + install_hint(*extras),
            file=sys.stderr,
        )
        return 2
    except Exception:  # Python would exit with 1, which is a verdict of `icr gate`
        sys.stderr.write(redact_text(traceback.format_exc()))
        return 2


def _streams() -> None:
    """Streams that take whatever is printed: one that is closed (`>&-`) leads nowhere, and a sign that a terminal lacks
    must not end the command."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "r+", encoding="utf-8")  # noqa: SIM115
            if nowhere.fileno() > number:  # else it has that number itself; no file of ours may get it
                os.dup2(nowhere.fileno(), number)
            setattr(sys, name, nowhere)
    for stream in (sys.stdout, sys.stderr):
        # a terminal of the C locale takes what is no ASCII only where it came as such, in a file's name
        utf8 = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
        if getattr(stream, "errors", None) in (("strict",) if utf8 else ("strict", "surrogateescape")):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _refused(command: str, error: OSError) -> str | None:
    """What the file system refused, as a line that names what to do; None for what is no matter of the place."""
    place = str(error.filename) if error.filename else ""
    if error.errno in NO_SPACE:
        where = f" ({place})" if place else ""
        return f"icr: error: `icr {command}` found no space left{where}: free some, then run it again\n"
    if error.errno not in _PLACES or not place:
        return None
    return f"icr: error: `icr {command}` cannot use {place} ({error.strerror}): name another place, or make it usable\n"


def _extras(module: str) -> list[str]:
    """The extras of this package that bring a module, as its metadata name them; none for a module of no extra."""
    from importlib.metadata import requires

    name = module.partition(".")[0].replace("_", "-").lower()
    found = [
        re.match(r"([\w.-]+).*extra == ['\"]([\w-]+)['\"]", line) for line in requires("icr-tasks") or []
    ]
    return sorted({m.group(2) for m in found if m and m.group(1).lower() == name} - {"dev", "docs"})
