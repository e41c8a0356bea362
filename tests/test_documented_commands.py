"""Every command line of the docs, of the shipped configs' headers and of the training commands' help is taken
by its command's own parser; names of shipped configs, studies and accelerate files in them exist."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from icr_tasks.cli import main
from icr_tasks.training import config as configs
from icr_tasks.training import launch
from icr_tasks.training.study import spec

ROOT = Path(__file__).resolve().parent.parent
_START = re.compile(r"(?:#\s*)?(?:\w+=\S+ )*(icr|lm_eval) (?!-h)")


class Parsed(BaseException):
    """Raised where a command would begin to work; no handler of ours catches it."""

    def __init__(self, found: argparse.Namespace) -> None:
        self.found = found


def _words(line: str) -> list[str]:
    """A command's words: without comment, pipe, optional brackets and what stands for "more of these"; "..." after an
    option or an equals sign is a value."""
    line = re.sub(r"\s{2,}#.*|\s+#\s.*", "", line).partition(" | ")[0].partition(" > ")[0].partition(" ; ")[0]
    found: list[str] = []
    for word in shlex.split(re.sub(r"[\[\]](?![^']*'(?:\s|$))", "", line)):
        if word == "...":
            if found and re.fullmatch(r"--[\w-]+", found[-1]):
                found.append("X")
        elif word != "\\":
            found.append(word.replace("=...", "=X").removesuffix("..."))
    return found


def lines() -> list[tuple[str, str]]:
    """(where, command line)."""
    found = []
    for path in sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]):
        text = path.read_text(encoding="utf-8")
        for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.S):
            found += [(path.name, line.strip()) for line in block.replace("\\\n", " ").splitlines()]
    for path in sorted(configs.SHIPPED.rglob("*.yaml")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                said = line.partition("Run: ")[2] or line.lstrip("# ")
                found.append((path.name, said.partition("     (")[0]))
    for path in sorted((ROOT / "training").rglob("*.py")):
        head = path.read_text(encoding="utf-8").split('"""')
        body = head[1].replace("\\\\\n", " ").replace("\n    --", " --") if len(head) > 2 else ""
        found += [(path.name, line.strip()) for line in body.splitlines() if "`" not in line]
    # an output line names a run as "model (full, ao)@947ab6"
    return [(where, line) for where, line in found if _START.match(line) and ")@" not in line]


ICR = sorted({(w, line) for w, line in lines() if re.match(r"(#\s*)?icr ", line)})
LM_EVAL = sorted({(w, line) for w, line in lines() if re.match(r"(#\s*)?(\w+=\S+ )*lm_eval (?!ls)", line)})


@pytest.fixture(autouse=True)
def stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Parsers stop the command once the outermost call has taken the line; nothing may become another program."""
    depth = [0]

    def stopping(original: Any) -> Any:
        def taken(self: Any, *args: Any, **kwargs: Any) -> Any:
            depth[0] += 1
            try:
                found = original(self, *args, **kwargs)
            finally:
                depth[0] -= 1
            if depth[0]:
                return found  # a parser's own call, or a subparser's
            raise Parsed(found[0] if isinstance(found, tuple) else found)

        return taken

    for name in ("parse_args", "parse_intermixed_args", "parse_known_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, stopping(getattr(argparse.ArgumentParser, name)))
    for name in ("execv", "execvp", "execvpe"):
        monkeypatch.setattr(os, name, lambda *args: pytest.fail(f"{args} would have been started"))
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **_: pytest.fail(f"{args} would have been started")
    )
    monkeypatch.chdir(tmp_path)


def test_there_are_lines() -> None:
    assert len(ICR) > 60 and len(LM_EVAL) > 15


@pytest.mark.parametrize(("where", "line"), ICR, ids=[f"{w}: {line[:60]}" for w, line in ICR])
def test_a_command_of_ours_is_taken_by_its_parser(
    where: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(line)[1:]
    try:
        code = main(words)
    except Parsed as parsed:
        _names(words, parsed.found)
        return
    except SystemExit as end:
        pytest.fail(f"{where}: {line}: {end.code}: {capsys.readouterr().err}")
    assert words[:2] == ["train", "configs"] and code == 0, (where, line, capsys.readouterr().err)


def _names(words: list[str], args: argparse.Namespace) -> None:
    """Configs, overrides, studies and accelerate files that ship are named and changed as they can be."""
    if words[0] != "train":
        return
    given = str(getattr(args, "config", None) or getattr(args, "study", None) or "")
    if words[1] in ("grpo", "sft", "launch", "prepare", "difficulty") and (configs.SHIPPED / given).is_file():
        configs.load(given, args.overrides)
    if words[1] == "study" and given.endswith("_cpu.yaml"):
        spec.load(Path(given), Path("out"))
    if getattr(args, "accelerate", "") not in ("", launch.CPU, "my_accelerate.yaml"):
        launch.accelerate_file(args.accelerate)


@pytest.mark.parametrize(("where", "line"), LM_EVAL, ids=[f"{w}: {line[:60]}" for w, line in LM_EVAL])
def test_a_command_of_lm_eval_is_taken_by_its_parser(
    where: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harness = pytest.importorskip("lm_eval._cli.harness")
    words = _words(line)
    words = words[words.index("lm_eval") + 1 :]
    try:
        _parse(harness, words)
    except Parsed:
        return
    except SystemExit as end:
        pytest.fail(f"{where}: {line}: {end.code}: {capsys.readouterr().err}")
    pytest.fail(f"{where}: {line} was not parsed")


def _parse(harness: Any, words: list[str]) -> None:
    """As `lm_eval WORDS`, where `run` may be left out."""
    parser = harness.HarnessCLI()._parser
    given = words if words and words[0] in ("run", "ls", "validate") else ["run", *words]
    parser.parse_args(given)
