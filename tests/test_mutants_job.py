"""The mutation job: what it changes, which tests it chooses, and when it fails."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CI = Path(__file__).resolve().parent.parent / ".ci"


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, CI / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def job() -> Any:
    if not CI.is_dir():
        pytest.skip("the job lies in the checkout")
    for name in ("mutations", "covering", "equivalents"):
        _load(name)
    return _load("mutants")


def test_a_sample_fails_only_where_chance_does_not_explain_it(job: Any) -> None:
    binom = pytest.importorskip("scipy.stats").binom
    for of in (1, 12, 30):
        for noticed in range(of + 1):
            assert job.passes(noticed, of, 0.9, 1e-3) == (binom.cdf(noticed, of, 0.9) >= 1e-3)
    assert not job.passes(20, 30, 0.9, 1e-3) and job.passes(21, 30, 0.9, 1e-3)
    assert job.passes(270, 300, 0.9, None) and not job.passes(269, 300, 0.9, None)
    assert binom.cdf(20, 30, 0.5) > 0.97  # half-tested code fails


CODE = '''"""A module."""
LIMIT = 3
def plain(a, b=1):
    """Of two."""
    return a < b and not a
@property
def decorated(self):
    def inner(x):
        return x + 1
    raise ValueError(1 + 1)
'''


def test_changes_leave_what_people_read_alone(job: Any) -> None:
    tree = ast.parse(CODE)
    found = [(line, what, job.function_at(tree, line)) for line, what, _ in job.mutations.changes(tree)]
    assert sorted(found, key=str) == sorted([
        (2, "3 -> 4", None), (3, "1 -> 2", None), (5, "And -> Or", 3), (5, "Lt -> LtE", 3), (5, "not dropped", 3),
        (9, "Add -> Sub", 8), (9, "1 -> 2", 8),
    ], key=str)  # fmt: skip
    for number, (line, what, _) in enumerate(job.mutations.changes(ast.parse(CODE))):
        changed = ast.parse(CODE)
        job.mutations.changes(changed)[number][2]()
        assert ast.unparse(changed) != ast.unparse(ast.parse(CODE)), (line, what)


def test_what_decides_no_result_is_left_alone(job: Any) -> None:
    """What a cache holds, that two lists are as long as each other, splits behind the first piece."""
    code = (
        "CACHE = Lru(1 << 20)\n"
        "for a, b in zip(x, y, strict=True): pass\n"
        "for a, b in zip(x, y, strict=False): pass\n"
        "first = text.split('x', 1)[0]\n"
        "second = text.split('x', 1)[1]\n"
        "piece = re.split(mark, text[2:], maxsplit=1)[0]\n"
    )
    found = [(line, what) for line, what, _ in job.mutations.changes(ast.parse(code))]
    assert sorted(found) == [
        (3, "False -> True"), (4, "0 -> 1"), (5, "1 -> 2"), (5, "1 -> 2"), (6, "0 -> 1"), (6, "2 -> 3")
    ]  # fmt: skip


SUBJECT = """import functools
def one():
    return 1

def two():
    return one() + 1

def three():
    return 3

@functools.lru_cache
def four():
    def inner():
        return 3 + 1
    return inner()

class Thing:
    @property
    def five(self):
        return min(5, 6)

LIMIT = 7
"""
# The skipped test is part of the constructed file: one that never ran enters no function and must not be chosen.
TESTS = """import pytest, time
from subject import LIMIT, Thing, four, one, three, two
from hypothesis import given, settings, strategies as st
@pytest.fixture(scope='module')
def shared():
    return three()
def test_one():
    assert one() == 1
def test_two():
    assert two() == 2
def test_first(shared):
    assert shared
def test_second(shared):
    assert shared == 3
@pytest.mark.skip
def test_skipped():
    one()
def test_timed():
    assert time.perf_counter() and one()
def test_four():
    assert four() == 4
def test_four_again():
    assert four() == 4
CALLS = []
@settings(max_examples=5000)
@given(st.integers())
def test_many(n):
    CALLS.append(n)
    assert Thing().five == 5 and len(CALLS) <= 30
def test_limit():
    assert LIMIT == 7
"""


def test_tests_are_chosen_by_the_functions_they_enter_and_notice_what_changed(
    job: Any, tmp_path: Path
) -> None:
    package = tmp_path / "icr_tasks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "subject.py").write_text(SUBJECT)
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_subject.py").write_text(TESTS.replace("from subject", "from icr_tasks.subject"))
    script = (
        "import sys; sys.path[:0] = sys.argv[1:3]; sys.dont_write_bytecode = True\n"
        "import json, mutants; from pathlib import Path\n"
        "mutants.TESTS = Path(sys.argv[2]) / 'tests'\n"
        "mutants.MODULES, mutants.ABOUT, mutants.PRELOAD = ('subject',), {'subject': ('test_subject',)}, ('pytest',)\n"
        "observe = mutants.Job.observe\n"
        "def said(self, items, functions):\n"
        "    observe(self, items, functions)\n"
        "    self.say(json.dumps({t.partition('::')[2]: sorted(n for _, n in p) for t, p in self.known.entered.items()}))\n"
        "mutants.Job.observe = said\n"
        "sys.exit(mutants.main(['--jobs', '2', '--floor', '0.95']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(CI), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
    )
    lines = done.stdout.splitlines()
    assert json.loads(next(line for line in lines if line.startswith("{"))) == {
        "test_one": [2], "test_two": [2, 5], "test_first": [8], "test_second": [8], "test_four": [11, 13],
        "test_four_again": [11, 13], "test_many": [18], "test_limit": [],
    }, done.stdout + done.stderr  # fmt: skip
    # min(5, 6) of five is 5 also where 6 becomes 7: one of the ten survives
    assert [line for line in lines if line.startswith("survived")] == ["survived: subject:20 6 -> 7 "], (
        done.stdout
    )
    assert "10 of 11 mutants noticed (90.9 %), floor 95 %" in done.stdout
    assert done.returncode == 1


def test_tests_that_fail_without_a_change_stop_the_job(job: Any, tmp_path: Path) -> None:
    args = argparse.Namespace(jobs=1, only="", minutes=None)
    found = job.Job(args, sys.stdout, tmp_path)
    found.known.failed.append("test_a.py::test_b")
    found.observe = lambda items, functions: None
    found.run = lambda *_: pytest.fail("mutants run although a test fails without one")
    found.collected([], {})


def test_what_is_called_equivalent_stands_in_the_code(job: Any) -> None:
    for module, line, what in job.EQUIVALENT:
        raw = job.source(module).read_text(encoding="utf-8")
        there = [
            (raw.splitlines()[n - 1].strip(), said) for n, said, _ in job.mutations.changes(ast.parse(raw))
        ]
        assert (line, what) in there, (module, line, what)
    assert all(reason for reason in job.EQUIVALENT.values())
