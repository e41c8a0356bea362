"""Which test enters which function, and functions exchanged in a process that runs: what mutants.py builds on.

Nothing is traced. The code of the live functions of a module is exchanged in place: for code that notes its own
entry, while it is found which tests enter what, and for changed code on a mutant.
"""

from __future__ import annotations

import ast
import functools
import gc
import inspect
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

_NOTE = "__icr_entered__"
_EXAMPLES = 30  # of a hypothesis test: the same ones every time
# A test that looks at a clock says nothing about a mutant on a machine that does something else as well.
_CLOCKS = {"perf_counter", "monotonic", "process_time"}
_CPU, _WALL = 10.0, 120.0  # a test on a mutant may take this beside five (twenty) times what it takes


# -- functions ---------------------------------------------------------------------------------------------


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
                found = max(found or 0, _begins(node))
    return found


def _begins(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def live(files: Sequence[Path]) -> dict[str, list[FunctionType]]:
    """The functions of files that exist in this process, lambdas left out: two may stand on one line."""
    found: dict[str, list[FunctionType]] = {str(path): [] for path in files}
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_name != "<lambda>":
            found.get(one.__code__.co_filename, []).append(one)
    return found


def exchange(functions: Sequence[FunctionType], tree: ast.AST, path: str) -> None:
    """Give live functions the code that they have in a tree of the same functions at the same lines."""
    table: dict[tuple[str, int], CodeType] = {}
    waiting = [compile(ast.fix_missing_locations(tree), path, "exec")]  # type: ignore[call-overload]
    while waiting:
        code = waiting.pop()
        table[code.co_qualname, code.co_firstlineno] = code
        waiting += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    for function in functions:
        function.__code__ = table[function.__code__.co_qualname, function.__code__.co_firstlineno]


def noting(functions: Mapping[str, Sequence[FunctionType]], seen: set[tuple[str, int]]) -> None:
    """From here on every function of these files adds (file, line) to `seen` when it is entered."""
    for path, those in functions.items():
        tree = ast.parse(Path(path).read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                at = int(ast.get_docstring(node, clean=False) is not None)
                call = ast.parse(f"{_NOTE}(({path!r}, {_begins(node)}))").body[0]
                for part in ast.walk(call):
                    ast.copy_location(part, node.body[0])
                node.body.insert(at, call)
        exchange(those, tree, path)
        for function in those:
            function.__globals__[_NOTE] = seen.add


def caches() -> list[Any]:
    """Functions of icr_tasks that remember results: emptied before each test that is observed, else a test enters
    nothing where an earlier one asked the same."""
    return [
        one
        for one in gc.get_objects()
        if type(one) is functools._lru_cache_wrapper and str(one.__module__).startswith("icr_tasks")
    ]


# -- sessions ----------------------------------------------------------------------------------------------


class Session:
    """Collects once and hands the tests, in place of running them, to `work`."""

    def __init__(self, work: Callable[[dict[str, Any]], None], without: Sequence[str] = ()) -> None:
        self.work, self.without = work, without

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Few examples and always the same, no shrinking; nothing that is timed."""
        items[:] = [
            item
            for item in items
            if item.name not in self.without and not _CLOCKS & {*_few(item).__code__.co_names}
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        """What the session does."""
        if not session.testsfailed:  # a file that cannot be imported was said by pytest
            self.work({item.nodeid: item for item in session.items})
        return True


def _few(item: Any) -> Any:
    """A test's own function; where hypothesis calls it, with few examples from here on."""
    test = getattr(item.obj, "__func__", item.obj)
    if not hasattr(test, "hypothesis"):
        return inspect.unwrap(test)
    import hypothesis

    now = test._hypothesis_internal_use_settings or hypothesis.settings.default
    test._hypothesis_internal_use_settings = hypothesis.settings(
        now,
        max_examples=min(now.max_examples, _EXAMPLES),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    return inspect.unwrap(test.hypothesis.inner_test)


def alone(folder: Path) -> None:
    """Temporary files of this process below a folder of its own."""
    import tempfile

    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)
    os.environ.update(PYTEST_DEBUG_TEMPROOT=str(folder), TMPDIR=str(folder))


class _Reports:
    def __init__(self) -> None:
        self.failed, self.skipped = False, False

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed |= report.failed
        self.skipped |= report.skipped


def _each(items: Sequence[Any]) -> Iterator[tuple[str, Callable[[], _Reports]]]:
    """(test, how to run it), for every test in turn."""
    for item, after in zip(items, [*items[1:], None], strict=True):

        def run(item: Any = item, after: Any = after) -> _Reports:
            reports = _Reports()
            item.config.pluginmanager.register(reports)
            try:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            finally:
                item.config.pluginmanager.unregister(reports)
            return reports

        yield item.nodeid, run


def observe(
    items: Sequence[Any],
    functions: Mapping[str, Sequence[FunctionType]],
    remembering: Sequence[Any],
    out: Path,
) -> None:
    """Run tests on the code as it is, in a process of their own; write [CPU seconds of each, what each enters, those
    that failed] as JSON. What a fixture of many tests enters counts for each that asks for it."""
    seen: set[tuple[str, int]] = set()
    shared: dict[str, set[tuple[str, int]]] = {}

    class Fixtures:
        @pytest.hookimpl(hookwrapper=True)
        def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
            before = set(seen)
            seen.clear()
            yield
            if fixturedef.scope != "function":
                shared.setdefault(fixturedef.argname, set()).update(seen)
            seen.update(before)

    if items:
        items[0].config.pluginmanager.register(Fixtures())
    noting(functions, seen)
    seconds, entered, failed = dict[str, float](), dict[str, set[tuple[str, int]]](), list[str]()
    asked = {item.nodeid: getattr(item, "fixturenames", ()) for item in items}
    for test, run in _each(items):
        for cache in remembering:
            cache.cache_clear()
        seen.clear()
        before = time.process_time()
        reports = run()
        if reports.failed:
            failed.append(test)
        elif not reports.skipped:  # a skipped test checks nothing
            seconds[test] = time.process_time() - before
            entered[test] = set(seen)
    for test, places in entered.items():
        for name in asked[test]:
            places |= shared.get(name, set())
    out.write_text(json.dumps([seconds, {test: sorted(places) for test, places in entered.items()}, failed]))


def notices(items: Sequence[Any], seconds: Mapping[str, float]) -> bool:
    """Whether one of the tests fails here. A test that takes too long ends this process by a signal, by CPU seconds:
    another program on the machine must not look like an endless loop."""
    resource.setrlimit(resource.RLIMIT_AS, (_memory() + (4 << 30), resource.RLIM_INFINITY))
    for test, run in _each(items):
        usual = seconds.get(test, 0.0)
        limit = int(time.process_time() + _CPU + 5 * usual) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        signal.alarm(int(_WALL + 20 * usual))
        if run().failed:
            print("failed:", test, file=sys.stderr)
            return True
    return False


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
