"""docs/commands/ is what the parsers say: current, complete, and every argument has a meaning."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from icr_tasks.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "commands"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    pytest.importorskip("numba")  # of the extra [train], as pyarrow: commands of training import it
    spec = importlib.util.spec_from_file_location("command_pages", ROOT / ".ci" / "command_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from actions(verb)
        elif not isinstance(action, argparse._HelpAction):
            yield action


def test_the_pages_are_current(maker: ModuleType) -> None:
    wanted = maker.pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    assert wanted.keys() == there.keys()
    stale = [name for name in wanted if wanted[name] != there[name]]
    assert not stale, f"run make docs-commands: {stale}"


def test_every_command_has_a_page_and_every_option_stands_on_it(maker: ModuleType) -> None:
    assert {f"{name}.md" for name in COMMANDS} | {"index.md"} == {path.name for path in FOLDER.glob("*.md")}
    count = 0
    for command, _, parser, _ in maker.parsers():
        text = (FOLDER / f"{command.split()[0]}.md").read_text(encoding="utf-8")
        for action in actions(parser) if parser is not None else ():
            for option in action.option_strings:
                assert f"`{option}" in text or f", {option}" in text, (command, option)
                count += 1
    assert count >= 200


def test_every_argument_has_a_meaning(maker: ModuleType) -> None:
    bare = [
        (command, action.option_strings or action.dest)
        for command, _, parser, _ in maker.parsers()
        for action in (actions(parser) if parser is not None else ())
        if not (action.help or "").strip()
    ]
    assert bare == []


def test_pages_do_not_depend_on_the_machine(
    maker: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another home, other settings of ours in the environment, another terminal: the same pages."""
    before = maker.pages()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "37")
    assert maker.pages() == before
    assert str(tmp_path) not in "".join(before.values())
