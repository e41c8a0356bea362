"""The mutation job: what it changes, which tests it chooses, and when it fails."""

from __future__ import annotations

import ast
import importlib.util
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
    for name in ("mutations", "covering"):
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


def test_tests_are_chosen_by_the_functions_they_enter(job: Any, tmp_path: Path) -> None:
    (tmp_path / "subject.py").write_text(
        "def one():\n    return 1\n\ndef two():\n    return one() + 1\n\ndef three():\n    return 3\n"
    )
    # The skipped test is part of the constructed file: one that never ran enters no function and must not be chosen.
    (tmp_path / "test_subject.py").write_text(
        "import pytest, subject\n"
        "@pytest.fixture(scope='module')\ndef shared():\n    return subject.three()\n"
        "def test_one():\n    assert subject.one() == 1\n"
        "def test_two():\n    assert subject.two() == 2\n"
        "def test_first(shared):\n    assert shared\n"
        "def test_second(shared):\n    assert shared == 3\n"
        "@pytest.mark.skip\ndef test_skipped():\n    subject.one()\n"
    )
    script = (
        "import sys, json, pytest; from pathlib import Path; sys.path[:0] = sys.argv[1:3]\n"
        "from covering import Chosen, Covering\n"
        "seen = Covering([Path(sys.argv[2]) / 'subject.py'])\n"
        "options = ['-q', '-p', 'no:cacheprovider', '--rootdir', sys.argv[2], sys.argv[2]]\n"
        "assert pytest.main(options, plugins=[seen]) == 0\n"
        "names = lambda tests: [t.partition('::')[2] for t in tests]\n"
        "print(json.dumps({t: sorted(n for _, n in p) for t, p in zip(names(seen.entered), seen.entered.values())}))\n"
        "chosen = ['test_subject.py::test_two', 'test_subject.py::test_one']\n"
        "for others in (False, True):\n"
        "    ran = Covering([]); pytest.main(options, plugins=[Chosen(chosen, others), ran]); print(names(ran.seconds))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(CI), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("{", "["))]
    assert lines == [
        '{"test_one": [1], "test_two": [1, 4], "test_first": [7], "test_second": [7]}',
        "['test_two', 'test_one']",
        "['test_first', 'test_second']",
    ], done.stdout + done.stderr


def test_what_is_called_equivalent_stands_in_the_code(job: Any) -> None:
    for module, line, what in job.EQUIVALENT:
        raw = job.source(module).read_text(encoding="utf-8")
        there = [
            (raw.splitlines()[n - 1].strip(), said) for n, said, _ in job.mutations.changes(ast.parse(raw))
        ]
        assert (line, what) in there, (module, line, what)
    assert all(reason for reason in job.EQUIVALENT.values())
