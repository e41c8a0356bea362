"""Would the tests notice? Small changes are made to the code, one at a time, and the related tests run on each.

    python -P .ci/mutants.py                    300 mutants, at least 90 % noticed (make mutants)
    python -P .ci/mutants.py --n 30 --minutes 4 --by-chance 0.001     what CI runs

Mutants are drawn by the hash of the changed files and of their tests: the same tree gives the same ones, another
tree others. Each runs in a fork of this process, which has loaded third-party packages and none of the modules that
are changed; the changed module exists in memory only. First run the tests that enter the changed function, the
quickest first; where they pass, the others of the group. A mutant that ends with a failed test, an error or by taking
too long is noticed.

Thirty mutants are a sample: of code where 90 % are noticed, 26 or fewer of 30 are in every third tree. `--by-chance P`
therefore fails only for a count that would come about less than once in 1/P trees (P = 0.001: fewer than 21 of 30,
which half-tested code has in 98 of 100 trees). The 300 of the nightly run have the floor itself.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import importlib.util
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import mutations
from covering import Chosen, Covering, function_at

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
        ("test_store_collect", "test_collect_merge", "test_ledger_rows"),
    ),
)
# Changes that change nothing a caller can see: (module, line of code, change) -> why.
_BLOCK = "how much is read at once"
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "metrics.extract",
        "return at - 1",
        "1 -> 2",
    ): "turns begin at line ends, and a line that answers has a character",
    ("metrics.extract", "return at + 1", "1 -> 2"): "beyond the text either way",
    ("metrics.extract", "return at + 1", "Add -> Sub"): "no turn begins at the end of the text",
    ("leaderboard.ledgers.lm_eval_files", 'back, tail = 1 << 16, b""', "1 -> 2"): _BLOCK,
    ("leaderboard.ledgers.lm_eval_files", 'back, tail = 1 << 16, b""', "16 -> 17"): _BLOCK,
    ("leaderboard.ledgers.lm_eval_files", "back *= 4", "4 -> 5"): _BLOCK,
    (
        "leaderboard.ledgers.lm_eval_files",
        'with path.open("rb", buffering=1 << 18) as file:',
        "1 -> 2",
    ): _BLOCK,
    (
        "leaderboard.ledgers.lm_eval_files",
        'with path.open("rb", buffering=1 << 18) as file:',
        "18 -> 19",
    ): _BLOCK,
    ("leaderboard.ledgers.collect", "for part in ledger.batched(chosen.rows, 200):", "200 -> 201"): _BLOCK,
    ("leaderboard.ledgers.collect", "for part in ledger.batched(lines, 200):", "200 -> 201"): _BLOCK,
}
PRELOAD = (
    "numpy", "orjson", "pydantic", "hypothesis", "pytest", "httpx", "tenacity", "tokenizers", "bm25s", "rouge_score",
    "rouge_score.rouge_scorer", "transformers", "torch", "statsmodels.stats.proportion", "tqdm", "scipy.stats",
)  # fmt: skip
FLOOR = 0.9
_NONE_LEFT = 5  # pytest's exit code where no test was chosen
_SECONDS = 20.0  # a mutant may take this long beside three times what its tests take


@dataclass(frozen=True)
class Mutant:
    """The `number`-th change that can be made to `module`, in the function that begins at `function` (None: on
    import)."""

    module: str
    number: int
    line: int
    what: str
    function: int | None
    tests: tuple[str, ...]


class Known(NamedTuple):
    """A group's tests on the code as it is: seconds of each, and the functions that each enters."""

    seconds: dict[str, float]
    entered: dict[str, list[tuple[str, int]]]

    def of(self, mutant: Mutant) -> list[str]:
        """Tests that enter the changed function, by file, the files and the tests in each by seconds; of what runs on
        import, those that enter the module."""
        path, files = str(source(mutant.module)), dict[str, float]()
        found = [
            test
            for test, places in self.entered.items()
            if any(p == path and mutant.function in (None, line) for p, line in places)
        ]
        for test in found:
            name = test.partition("::")[0]
            files[name] = files.get(name, 0.0) + self.seconds[test]
        return sorted(
            found, key=lambda t: (files[t.partition("::")[0]], t.partition("::")[0], self.seconds[t])
        )


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


# -- running -----------------------------------------------------------------------------------------------


def drawn(n: int, only: Sequence[str] = ("",)) -> tuple[list[Mutant], str]:
    """`n` mutants of modules whose names begin so, by the hash of their code and its tests."""
    digest, every = hashlib.sha256(), []
    for modules, tests in GROUPS:
        there = tuple(t for t in tests if (TESTS / f"{t}.py").is_file())
        modules = tuple(m for m in modules if m.startswith(tuple(only)))
        for test in there if modules else ():
            digest.update((TESTS / f"{test}.py").read_bytes())
        for module in modules:
            raw = source(module).read_bytes()
            digest.update(raw)
            tree, lines = ast.parse(raw), raw.decode().splitlines()
            for number, (line, what, _) in enumerate(mutations.changes(tree)):
                if (module, lines[line - 1].strip(), what) not in EQUIVALENT:
                    every.append(Mutant(module, number, line, what, function_at(tree, line), there))
    seed = digest.hexdigest()[:16]
    return random.Random(seed).sample(every, min(n, len(every))), seed


def fork(files: Sequence[str], plugin: object, mutant: Mutant | None = None, log: str = os.devnull) -> int:
    """Start the tests that a plugin chooses from files, on a mutant or on the code as it is; return the process id."""
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
            mutations.changes(tree)[mutant.number][2]()
            sys.meta_path.insert(0, mutations.Finder(f"icr_tasks.{mutant.module}", path, tree))  # type: ignore[arg-type]
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", f"--rootdir={TESTS.parent}"]
        code = int(pytest.main([*options, *files], plugins=[plugin]))
        if isinstance(plugin, Covering):
            seen = {t: sorted(places) for t, places in plugin.entered.items() if t in plugin.seconds}
            Path(f"{log}.json").write_text(json.dumps([plugin.seconds, seen]))
    finally:
        os._exit(code)


def clean(groups: Sequence[tuple[str, ...]], jobs: int) -> dict[tuple[str, ...], Known] | None:
    """What is known of each group's tests; None where one fails on the code as it is."""
    found: dict[tuple[str, ...], Known] = {}
    waiting, running, failed = list(groups), dict[int, tuple[tuple[str, ...], str, float]](), False
    while waiting or running:
        while waiting and len(running) < jobs:
            tests, log = waiting.pop(0), f"/tmp/icr-mutants-{os.getpid()}-{len(waiting)}.log"
            watch = Covering([source(m) for modules, _ in GROUPS for m in modules])
            running[fork(paths(tests), watch, log=log)] = tests, log, time.monotonic()
        pid, status = os.wait()
        tests, log, since = running.pop(pid)
        if code := os.waitstatus_to_exitcode(status):
            print(
                f"{', '.join(tests)}: exit code {code} on the code as it is\n{Path(log).read_text()[-2000:]}"
            )
            failed = True
            continue
        found[tests] = Known(*json.loads(Path(f"{log}.json").read_text()))
        print(f"{time.monotonic() - since:6.1f} s  {', '.join(tests)}", flush=True)
    return None if failed else found


def paths(tests: Sequence[str]) -> list[str]:
    """Test files by name or by the tests in them, without repeats."""
    return list(dict.fromkeys(str(TESTS / f"{Path(t.partition('::')[0]).stem}.py") for t in tests))


class Run:
    """A mutant's tests while they run: first those that enter the change, then the others of the group."""

    def __init__(self, mutant: Mutant, known: Known) -> None:
        self.mutant, self.known, self.tests = mutant, known, known.of(mutant)
        self.stages = [False, True] if self.tests else [True]

    def start(self) -> int:
        """Process id of the next stage."""
        others = self.stages.pop(0)
        seconds = self.known.seconds
        now = set(seconds) - set(self.tests) if others else set(self.tests)
        self.until = time.monotonic() + _SECONDS + 3 * sum(seconds[t] for t in now)
        files = self.mutant.tests if others else self.tests
        return fork(paths(files), Chosen(self.tests, others), self.mutant)


def passes(noticed: int, of: int, floor: float, by_chance: float | None) -> bool:
    """Whether enough are noticed: the floor itself or, with `by_chance`, any count that code at the floor would have
    with at least that probability (one-sided, binomial)."""
    if by_chance is None:
        return noticed >= floor * of
    return sum(comb(of, i) * floor**i * (1 - floor) ** (of - i) for i in range(noticed + 1)) >= by_chance


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 where too few mutants were noticed, 2 where the tests fail on the code itself."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=300, help="how many mutants")
    parser.add_argument("--floor", type=float, default=FLOOR, help="share that must be noticed")
    parser.add_argument(
        "--by-chance", type=float, help="fail only for a count less probable than this at the floor"
    )
    parser.add_argument("--only", default="", help="of modules whose names begin so: metrics,leaderboard")
    parser.add_argument("--minutes", type=float, help="stop after this long; what was not run is said")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    os.environ.update(ICR_LMEVAL_AUTOLOAD="0", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    os.chdir(TESTS.parent)
    started = time.monotonic()
    for name in PRELOAD:
        try:
            importlib.import_module(name)
        except ImportError:
            print(f"{name} is not installed: its tests skip")
    mutants, seed = drawn(args.n, args.only.split(","))
    print(f"{len(mutants)} mutants, seed {seed}", flush=True)
    known = clean(list(dict.fromkeys(m.tests for m in mutants)), args.jobs)
    if known is None:
        return 2
    waiting, running = [Run(m, known[m.tests]) for m in mutants[::-1]], dict[int, Run]()
    survived: list[Mutant] = []
    noticed = 0
    while waiting or running:
        if waiting and args.minutes is not None and time.monotonic() - started > 60 * args.minutes:
            print(f"{len(waiting)} of {len(mutants)} mutants not run: {args.minutes:g} minutes are over")
            waiting.clear()
        while waiting and len(running) < args.jobs:
            run = waiting.pop()
            running[run.start()] = run
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            run = running.pop(pid)
            if os.waitstatus_to_exitcode(status) not in (0, _NONE_LEFT):
                noticed += 1
            elif run.stages:
                running[run.start()] = run
            else:
                survived.append(run.mutant)
                print(f"survived: {run.mutant.module}:{run.mutant.line} {run.mutant.what}", flush=True)
            continue
        for late, run in running.items():
            if time.monotonic() > run.until:
                os.kill(late, 9)  # an endless loop: noticed when it is collected
        time.sleep(0.02)
    of = noticed + len(survived)
    print(
        f"{noticed} of {of} mutants noticed ({100 * noticed / max(of, 1):.1f} %), floor {100 * args.floor:g} %",
        end="",
    )
    print(f" less what is chance in {1 / args.by_chance:g} trees" if args.by_chance else "")
    print(f"{time.monotonic() - started:.0f} s", flush=True)
    return 0 if (of or args.by_chance) and passes(noticed, of, args.floor, args.by_chance) else 1


if __name__ == "__main__":
    sys.exit(main())
