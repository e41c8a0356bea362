"""Would the tests notice? Small changes are made to the code, one at a time, and the related tests run on each.

    python -P .ci/mutants.py                    300 mutants, at least 90 % noticed (make mutants)
    python -P .ci/mutants.py --n 30 --minutes 5     what CI runs

Mutants are drawn by the hash of the changed files and of their tests: the same tree gives the same ones, another
tree others. Each runs in a fork of this process, which has loaded third-party packages and none of the modules that
are changed; the changed module exists in memory only. A mutant that ends with a failed test, an error or by taking
too long is noticed. What is written for people is left alone: docstrings, messages, logs, annotations.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import importlib.util
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
# modules -> the tests that are about them
GROUPS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("metrics.answers", "metrics.normalised", "metrics.citations", "metrics.given"),
        ("test_metrics_qa", "test_answer_forms", "test_metrics_official"),
    ),
    (("metrics.extract",), ("test_metrics_qa", "test_answer_forms")),
    (("metrics.choice", "metrics.rouge"), ("test_metrics_official", "test_choice_renderings")),
    (("metrics.judge.rubrics", "metrics.judge.store"), ("test_judge_parse", "test_judge_store")),
    (
        ("context.fit", "context.build", "context.quality", "context.retrieve"),
        ("test_context_rules", "test_context_build", "test_retrieve", "test_retrieve_spans"),
    ),
    (
        ("context.pool", "context.retrieval.bm25", "context.retrieval.controls", "context.retrieval.iterate"),
        ("test_retrieve", "test_retrieve_spans", "test_retrieve_hops", "test_context_rules"),
    ),
    (("kv.topk", "kv.snapkv", "kv.streaming", "kv.keydiff", "kv.page"), ("test_kv_methods",)),
    (
        ("leaderboard.ledgers.collect", "leaderboard.ledgers.merge", "leaderboard.ledgers.lm_eval_files"),
        ("test_store_collect", "test_collect_merge"),
    ),
)
PRELOAD = (
    "numpy", "orjson", "pydantic", "hypothesis", "pytest", "httpx", "tenacity", "tokenizers", "bm25s", "rouge_score",
    "rouge_score.rouge_scorer", "transformers", "torch", "statsmodels.stats.proportion", "tqdm", "scipy.stats",
)  # fmt: skip
FLOOR = 0.9
_SECONDS = 20.0  # a mutant may take this long beside three times what the tests take

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """The `number`-th change that can be made to `module`."""

    module: str
    number: int
    line: int
    what: str
    tests: tuple[str, ...]


# -- changes -----------------------------------------------------------------------------------------------


def changes(tree: ast.AST) -> list[tuple[int, str, Callable[[], None]]]:
    """(line, what, how) of every change that can be made to a tree; each `how` changes the tree in place."""
    found: list[tuple[int, str, Callable[[], None]]] = []
    for node in _code(tree):
        line = getattr(node, "lineno", 0)
        for what, how in _of(node):
            found.append((line, what, how))
    return found


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes whose value decides something: no docstring, message, log line, annotation or import for types."""
    if isinstance(node, ast.Raise | ast.AnnAssign) and not isinstance(getattr(node, "value", None), ast.expr):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(
        ("log.", "warnings.", "IcrError", "unknown")
    ):
        return
    if isinstance(node, ast.Assert):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _code(child)


def _of(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in SWAPS:
                yield (
                    f"{type(op).__name__} -> {SWAPS[type(op)].__name__}",
                    _item(node.ops, i, SWAPS[type(op)]()),
                )
    elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in SWAPS and not _text(node):
        new = SWAPS[type(node.op)]
        yield f"{type(node.op).__name__} -> {new.__name__}", _attribute(node, "op", new())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not dropped", _double(node)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield f"{node.value} -> {not node.value}", _attribute(node, "value", not node.value)
        elif isinstance(node.value, int):
            yield f"{node.value} -> {node.value + 1}", _attribute(node, "value", node.value + 1)
        elif isinstance(node.value, float):
            yield f"{node.value} -> {node.value * 2 + 1}", _attribute(node, "value", node.value * 2 + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield f"{node.func.id} -> {CALLS[node.func.id]}", _attribute(node.func, "id", CALLS[node.func.id])
    elif isinstance(node, ast.IfExp):
        yield "branches exchanged", _exchange(node)


def _text(node: ast.AST) -> bool:
    """Whether a sum is one of texts, whose change is an error at once."""
    return isinstance(node, ast.BinOp) and any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _item(values: list[Any], at: int, new: Any) -> Callable[[], None]:
    return lambda: values.__setitem__(at, new)


def _attribute(node: ast.AST, name: str, new: Any) -> Callable[[], None]:
    return lambda: setattr(node, name, new)


def _double(node: ast.UnaryOp) -> Callable[[], None]:
    return lambda: setattr(node, "operand", ast.UnaryOp(ast.Not(), node.operand))


def _exchange(node: ast.IfExp) -> Callable[[], None]:
    def how() -> None:
        node.body, node.orelse = node.orelse, node.body

    return how


# -- modules -----------------------------------------------------------------------------------------------


def source(module: str) -> Path:
    """The file of a module of icr_tasks, as installed; the module itself is not imported."""
    package, _, name = f"icr_tasks.{module}".rpartition(".")
    if module.startswith("leaderboard."):
        root = importlib.util.find_spec("icr_tasks.leaderboard")
        package = package.removeprefix("icr_tasks.leaderboard").lstrip(".")
    else:
        root = importlib.util.find_spec("icr_tasks")
        package = package.removeprefix("icr_tasks").lstrip(".")
    assert root is not None and root.submodule_search_locations
    return Path(list(root.submodule_search_locations)[0]).joinpath(
        *filter(None, package.split(".")), f"{name}.py"
    )


class Changed(SourceFileLoader):
    """Loads one module from a changed tree."""

    def __init__(self, name: str, path: str, tree: ast.AST) -> None:
        super().__init__(name, path)
        self.tree = tree

    def get_code(self, fullname: str) -> Any:
        """The code of the changed tree; nothing is cached on disk."""
        return compile(ast.fix_missing_locations(self.tree), self.path, "exec")  # type: ignore[call-overload]


@dataclass
class Finder:
    """Finds the changed module before anything else does."""

    name: str
    path: Path
    tree: ast.AST = field(repr=False)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of that one module."""
        if name != self.name:
            return None
        loader = Changed(name, str(self.path), self.tree)
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


# -- running -----------------------------------------------------------------------------------------------


def drawn(n: int) -> tuple[list[Mutant], str]:
    """`n` mutants by the hash of the code and its tests."""
    digest, every = hashlib.sha256(), []
    for modules, tests in GROUPS:
        there = tuple(t for t in tests if (TESTS / f"{t}.py").is_file())
        for test in there:
            digest.update((TESTS / f"{test}.py").read_bytes())
        for module in modules:
            raw = source(module).read_bytes()
            digest.update(raw)
            for number, (line, what, _) in enumerate(changes(ast.parse(raw))):
                every.append(Mutant(module, number, line, what, there))
    seed = digest.hexdigest()[:16]
    return random.Random(seed).sample(every, min(n, len(every))), seed


def fork(tests: Sequence[str], mutant: Mutant | None, log: str = os.devnull) -> int:
    """Start the tests on a mutant (None: on the code as it is) and return the process id."""
    if pid := os.fork():
        return pid
    code = 99
    try:
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        if mutant is not None:
            path = source(mutant.module)
            tree = ast.parse(path.read_bytes())
            changes(tree)[mutant.number][2]()
            sys.meta_path.insert(0, Finder(f"icr_tasks.{mutant.module}", path, tree))  # type: ignore[arg-type]
        import pytest

        paths = [str(TESTS / f"{t}.py") for t in tests]
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *paths]))
    finally:
        os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 where fewer mutants than the floor were noticed, 2 where the tests fail on the code itself."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=300, help="how many mutants")
    parser.add_argument("--floor", type=float, default=FLOOR, help="share that must be noticed")
    parser.add_argument("--minutes", type=float, help="stop after this long; what was not run is said")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    os.environ.update(ICR_LMEVAL_AUTOLOAD="0", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    os.chdir(TESTS.parent)
    for name in PRELOAD:
        try:
            importlib.import_module(name)
        except ImportError:
            print(f"{name} is not installed: its tests skip")
    mutants, seed = drawn(args.n)
    print(f"{len(mutants)} mutants, seed {seed}")
    clean = _clean(dict.fromkeys(m.tests for m in mutants))
    if clean is None:
        return 2
    started = time.monotonic()
    waiting, running = list(mutants[::-1]), dict[int, tuple[Mutant, float]]()
    survived: list[Mutant] = []
    noticed = 0
    while waiting or running:
        late = args.minutes is not None and time.monotonic() - started > 60 * args.minutes
        if late and waiting:
            print(f"{len(waiting)} of {len(mutants)} mutants not run: {args.minutes:g} minutes are over")
            waiting.clear()
        while waiting and len(running) < args.jobs:
            mutant = waiting.pop()
            running[fork(mutant.tests, mutant)] = mutant, time.monotonic()
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            mutant, _ = running.pop(pid)
            if os.waitstatus_to_exitcode(status) == 0:
                survived.append(mutant)
                print(f"survived: {mutant.module}:{mutant.line} {mutant.what}", flush=True)
            else:
                noticed += 1
            continue
        for late_pid, (mutant, since) in running.items():
            if time.monotonic() - since > _SECONDS + 3 * clean[mutant.tests]:
                os.kill(late_pid, 9)  # an endless loop: noticed when it is collected
        time.sleep(0.05)
    share = noticed / max(noticed + len(survived), 1)
    print(
        f"{noticed} of {noticed + len(survived)} mutants noticed ({100 * share:.1f} %), floor {100 * args.floor:g} %"
    )
    return 0 if share >= args.floor else 1


def _clean(
    groups: Sequence[tuple[str, ...]] | dict[tuple[str, ...], None],
) -> dict[tuple[str, ...], float] | None:
    """Seconds that each group of tests takes on the code as it is; None where one fails."""
    found = {}
    for tests in groups:
        since, log = time.monotonic(), f"/tmp/icr-mutants-{os.getpid()}.log"
        _, status = os.waitpid(fork(tests, None, log), 0)
        if code := os.waitstatus_to_exitcode(status):
            print(
                f"{', '.join(tests)}: exit code {code} on the code as it is\n{Path(log).read_text()[-2000:]}"
            )
            return None
        found[tests] = time.monotonic() - since
        print(f"{found[tests]:6.1f} s  {', '.join(tests)}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
