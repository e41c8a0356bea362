"""`make docs-commands`: one page a command below docs/commands/, written from the commands' own parsers.

    python -P .ci/command_pages.py            # writes the pages
    python -P .ci/command_pages.py --check    # exits 1 and names the pages that are not current

A parser is what `main(argv)` builds: it is caught at the moment it would read the arguments, so a page cannot say
anything else than `--help` does. What depends on the machine (number of cores, home, plugins) is written in words.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from icr_tasks.cli import COMMANDS
from icr_tasks.training.cli import COMMANDS as TRAINING

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "commands"
CORES = 7919  # a default of this number is "all cores"
# command -> pages that explain what it is for
SUBJECTS: dict[str, tuple[str, ...]] = {
    "doctor": ("install",),
    "data": ("data", "benchmarks"),
    "lm-eval": ("install", "flags"),
    "tasks-path": ("install",),
    "demo": ("install",),
    "sweep": ("sweep", "scale", "settings"),
    "status": ("sweep", "scale"),
    "score": ("metrics",),
    "judge": ("judge",),
    "agreement": ("metrics",),
    "prepare": ("retrieval",),
    "rank": ("ranking",),
    "collect": ("leaderboard", "gate", "statistics"),
    "board": ("leaderboard",),
    "publish": ("publish",),
    "export": ("exports",),
    "compare": ("gate", "statistics"),
    "plan": ("statistics_design", "gate"),
    "gate": ("gate", "statistics"),
    "baseline": ("gate",),
    "check": ("gate", "publish"),
    "train": ("training", "training_data", "rewards", "training_studies"),
}


class Caught(Exception):
    """Carries the parser out of a command that was about to parse."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(target: str, package: str) -> argparse.ArgumentParser | None:
    """The parser of `.module:function`; None for a command that has none (it passes its arguments on, or takes one name)."""
    module, _, function = target.partition(":")
    main = getattr(import_module(module, package), function)

    def catch(self: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise Caught(self)

    names = ("parse_args", "parse_known_args", "parse_intermixed_args", "parse_known_intermixed_args")
    if "argparse" not in inspect.getsource(sys.modules[main.__module__]):
        return None
    with mock.patch.multiple(argparse.ArgumentParser, **{name: catch for name in names}):
        try:
            main([])
        except Caught as caught:
            return caught.parser
    raise RuntimeError(f"{target} ended without parsing its arguments")


def parsers() -> Iterator[tuple[str, str, argparse.ArgumentParser | None, str]]:
    """(command, one-line help, its parser, its docstring) of every command, those of `icr train` after it."""
    for package, prefix, commands in (
        ("icr_tasks", "", COMMANDS),
        ("icr_tasks.training", "train ", TRAINING),
    ):
        for name, (target, text) in commands.items():
            if prefix + name == "train":
                yield name, text, None, ""
                continue
            module, _, function = target.partition(":")
            said = getattr(import_module(module, package), function).__doc__ or ""
            yield prefix + name, text, parser_of(target, package), said


def plain(text: str) -> str:
    """A line for a table cell: no machine's home, no bars, no tags."""
    text = " ".join(text.replace(str(Path.home()), "~").split())
    return re.sub(r"<([^<>`]+)>", r"`<\1>`", text).replace("|", "\\|")


def default(action: argparse.Action, said: str) -> str:
    """` (default: ...)` where there is one that the help does not name already."""
    value = action.default
    if value is None or isinstance(value, bool) or value in ([], "", argparse.SUPPRESS) or "default" in said:
        return ""
    if value == CORES:
        return " (default: all cores)"
    return (
        f" (default: `{plain(','.join(map(str, value)) if isinstance(value, list | tuple) else str(value))}`)"
    )


def shown(action: argparse.Action) -> str:
    """How an argument is typed: `--limit N`, `A`, `[TASK ...]`."""
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    value = " ".join(value) if isinstance(value, tuple) else str(value)
    if not action.option_strings:
        value = value if action.metavar or action.choices else action.dest
        return {"*": f"[{value} ...]", "+": f"{value} [{value} ...]", "?": f"[{value}]"}.get(
            str(action.nargs), value
        )
    if action.nargs == 0:
        return ", ".join(action.option_strings)
    many = {"*": f"[{value} ...]", "+": f"{value} [{value} ...]", "?": f"[{value}]"}.get(
        str(action.nargs), value
    )
    return ", ".join(action.option_strings) + f" {many}"


def arguments(parser: argparse.ArgumentParser) -> list[str]:
    """The table of a parser's arguments."""
    lines = []
    for action in parser._actions:
        if (
            isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
            or action.help == argparse.SUPPRESS
        ):
            continue
        said = (action.help or "") % {**vars(action), "prog": parser.prog}
        more = (
            "; may be repeated" if type(action).__name__ == "_AppendAction" and "repeat" not in said else ""
        )
        must = "**required**: " if action.option_strings and action.required else ""
        lines.append(f"| `{plain(shown(action))}` | {must}{plain(said)}{more}{default(action, said)} |")
    hidden = [f"`{shown(a)}`" for a in parser._actions if a.help == argparse.SUPPRESS and a.option_strings]
    if hidden:
        lines += ["", f"Left out of `--help`, because another page explains them: {', '.join(hidden)}."]
    return ["| argument | meaning |", "|---|---|", *lines, ""] if lines else ["Takes no options.", ""]


def prose(text: str) -> str:
    """A description as Markdown: its indented lines are commands and stay as they are."""
    blocks, code = [], False
    for line in inspect.cleandoc(text).replace(str(Path.home()), "~").splitlines():
        inside = line.startswith(("    ", "  icr ", "icr ", "lm_eval ", "ICR_")) or (
            code and line.startswith("  ")
        )
        if inside != code:
            blocks.append("```" if code else "\n```")
        blocks.append(line.strip() if inside else line)
        code = inside
    return re.sub(r"\n{3,}", "\n\n", "\n".join([*blocks, "```"] if code else blocks))


def section(title: str, parser: argparse.ArgumentParser | None, fallback: str, level: int) -> list[str]:
    """A command, and its verbs below it."""
    lines = [f"{'#' * level} {title}", ""] if level > 1 else []
    lines += [prose((parser.description if parser is not None else None) or fallback), ""]
    if parser is None:
        return lines
    verbs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not verbs or len(arguments(parser)) > 2:
        lines += arguments(parser)
    for action in verbs:
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, verb in action.choices.items():
            lines += section(f"{title} {name}", verb, (helps.get(name) or "").capitalize() + ".", level + 1)
    return lines


NOTE = "<!-- Written by make docs-commands from the command's parser. Change the command, not this page. -->"


def pages() -> dict[str, str]:
    """File name below docs/commands -> text."""
    done: dict[str, str] = {}
    index = [
        NOTE,
        "",
        "# Commands",
        "",
        "`icr COMMAND --help` prints the same. Exit codes that a script can use stand on the",
    ]
    index += [
        "page of the command; 2 is an error in what was asked for, or a crash with its traceback, and 130 is Ctrl-C.",
        "",
        "| command | what it does |",
        "|---|---|",
    ]
    environment = {"ICR_PLUGINS": "off", "COLUMNS": "100"}
    hidden = [name for name in os.environ if name.startswith(("ICR_", "XDG_"))]
    with mock.patch.dict(os.environ, environment), mock.patch("os.cpu_count", lambda: CORES):
        for name in hidden:
            os.environ.pop(name, None)
        os.environ.update(environment)
        training: list[str] = []
        for command, text, parser, said in parsers():
            if command.startswith("train "):
                training += ["", f"## icr {command}", "", f"{text[0].upper()}{text[1:]}.", ""]
                training += section("", parser, said, 2)[2:]
                continue
            index.append(f"| [`icr {command}`]({command}.md) | {text} |")
            subjects = ", ".join(f"[{s.replace('_', ' ')}](../{s}.md)" for s in SUBJECTS[command])
            head = [
                NOTE,
                "",
                f"# icr {command}",
                "",
                f"{text[0].upper()}{text[1:]}. Explained in: {subjects}.",
                "",
            ]
            done[f"{command}.md"] = "\n".join([*head, *section(f"icr {command}", parser, said, 1)])
        done["train.md"] += "\n".join(training)
    done["index.md"] = "\n".join(index)
    return {name: re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" for name, text in done.items()}


def main() -> int:
    """0, or 1 when a page is not current (--check)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare only")
    args = parser.parse_args()
    wanted = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    stale = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if args.check:
        for name in stale:
            print(
                f"docs/commands/{name} is not what the parser says: run make docs-commands", file=sys.stderr
            )
        return int(bool(stale))
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    print(f"{len(wanted)} pages, {len(stale)} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
