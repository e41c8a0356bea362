"""Which test enters which function of the modules that are changed: a pytest plugin of mutants.py.

A function entered by a fixture that several tests share counts for each test that asks for the fixture. What a test
finds in a cache that an earlier one filled is not seen: mutants.py runs every test on a mutant before it calls it a
survivor.
"""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest


class Covering:
    """After a session: `seconds` of each test that passed or failed, `entered` = test -> {(file, line of def)}."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = {str(path) for path in files}
        self.seconds: dict[str, float] = {}
        self.entered: dict[str, set[tuple[str, int]]] = {}
        self._asked: dict[str, tuple[str, ...]] = {}
        self._shared: dict[str, set[tuple[str, int]]] = {}
        self._now: set[tuple[str, int]] = set()

    def _call(self, frame: Any, event: str, arg: Any) -> None:
        code = frame.f_code
        if code.co_filename in self.files:
            self._now.add((code.co_filename, code.co_firstlineno))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        """Watch a test from its fixtures to their end."""
        self._now = self.entered[item.nodeid] = set()
        self._asked[item.nodeid] = tuple(getattr(item, "fixturenames", ()))
        threading.settrace(self._call)
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        """What a fixture of many tests enters belongs to all of them."""
        if fixturedef.scope == "function":
            yield
            return
        before, self._now = self._now, self._shared.setdefault(fixturedef.argname, set())
        try:
            yield
        finally:
            before |= self._now
            self._now = before

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Seconds, setup and teardown included; a skipped test checks nothing."""
        if report.skipped:
            self.entered.pop(report.nodeid, None)
            self.seconds.pop(report.nodeid, None)
        elif report.nodeid in self.entered:
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        """Give each test what its shared fixtures entered."""
        for test, found in self.entered.items():
            for name in self._asked[test]:
                found |= self._shared.get(name, set())


class Chosen:
    """Runs tests in the order given; with `others`, all but these."""

    def __init__(self, tests: Sequence[str], others: bool) -> None:
        self.place = {test: n for n, test in enumerate(tests)}
        self.others = others

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave out what was not asked for; an id that nobody knew is one of the others."""
        items[:] = [item for item in items if (item.nodeid in self.place) != self.others]
        if not self.others:
            items.sort(key=lambda item: self.place[item.nodeid])


def function_at(tree: ast.AST, line: int) -> int | None:
    """Where the innermost function around a line begins, as its code object says it (the first decorator); None for
    what runs when the module is imported."""
    found = None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0].lineno
            if (
                first <= line <= (node.end_lineno or line)
            ):  # its defaults and decorators are evaluated on import
                found = max(found or 0, min([node.lineno, *(d.lineno for d in node.decorator_list)]))
    return found
