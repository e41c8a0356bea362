"""Would the tests notice? Small changes are made to the code, one at a time, and the related tests run on each.

    python -P .ci/mutants.py                    300 mutants, at least 90 % noticed (make mutants)
    python -P .ci/mutants.py --n 30 --minutes 4 --floor 0.8 --by-chance 0.001     what CI runs

Mutants are drawn by the hash of the changed files and of their tests: the same tree gives the same ones, another
tree others; `--draw` gives others of the same tree. The tests are collected once, and run once to see which of them
enter which function. Each mutant then is a fork of that process in which the changed code took the place of the
function's own; the tests that enter the function run, the quickest first, until one fails. What runs when a module
is imported is changed in a fork of a process that has not imported it yet. A mutant that ends with a failed test, an
error or by taking too long is noticed.

Thirty mutants are a sample: of code where 90 % are noticed, 26 or fewer of 30 are in every third tree. `--by-chance P`
therefore fails only for a count that code at the floor would have less than once in 1/P trees (0.8 and 0.001: fewer than
17 of 30, which half-tested code has in two trees of three). The 300 of the nightly run have the floor itself.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import covering
import mutations
from covering import function_at
from equivalents import EQUIVALENT
from mutations import passes

TESTS = Path(__file__).resolve().parent.parent / "tests"
MODULES = (
    "metrics.answers", "metrics.normalised", "metrics.citations", "metrics.given", "metrics.extract", "metrics.choice",
    "metrics.rouge", "metrics.judge.rubrics", "metrics.judge.store",
    "context.fit", "context.build", "context.quality", "context.retrieve", "context.pool", "context.retrieval.bm25",
    "context.retrieval.controls", "context.retrieval.iterate",
    "kv.topk", "kv.snapkv", "kv.streaming", "kv.keydiff", "kv.page",
    "leaderboard.ledgers.collect", "leaderboard.ledgers.merge", "leaderboard.ledgers.lm_eval_files",
)  # fmt: skip
# group of modules -> the files of tests that are about them
ABOUT = {
    "metrics": (
        "test_metrics_qa", "test_metrics_edges", "test_answer_forms", "test_metrics_official", "test_choice_renderings",
        "test_judge_parse", "test_judge_store", "test_judge_edges", "test_visible",
    ),
    "context": (
        "test_context_reference", "test_context_prompts", "test_context_rules", "test_context_build", "test_context_pool",
        "test_context_limits", "test_retrieve", "test_retrieve_spans", "test_retrieve_hops",
    ),
    "kv": ("test_kv_methods", "test_kv_rules"),
    "leaderboard": ("test_store_collect", "test_collect_merge", "test_collect_edges", "test_ledger_rows", "test_ledger_heads"),
}  # fmt: skip
PRELOAD = (
    "numpy", "orjson", "pydantic", "hypothesis", "pytest", "httpx", "tenacity", "tokenizers", "bm25s", "rouge_score",
    "rouge_score.rouge_scorer", "transformers", "torch", "statsmodels.stats.proportion", "tqdm", "scipy.stats",
)  # fmt: skip
# Measurements on data: they take as long as all others together, and what they run has small tests of its own.
LONG = (
    "test_rouge_engines_agree", "test_second_hops_are_found_on_synth", "test_second_hops_are_found_on_wikipedia",
    "test_retrieval_beats_its_controls_on_synth", "test_retrieval_beats_its_controls_on_wikipedia",
)  # fmt: skip
FLOOR = 0.9
_BROKEN = 98  # exit code where a mutant could not be made


@dataclass(frozen=True)
class Mutant:
    """The `number`-th change that can be made to `module`, in the function that begins at `function` (None: on
    import)."""

    module: str
    number: int
    line: int
    what: str
    function: int | None

    def tree(self) -> ast.Module:
        """The changed module."""
        tree = ast.parse(source(self.module).read_bytes())
        mutations.changes(tree)[self.number][2]()
        return tree


@dataclass
class Known:
    """The tests on the code as it is: CPU seconds of each, the functions that each enters, those that fail."""

    seconds: dict[str, float] = field(default_factory=dict)
    entered: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def of(self, mutant: Mutant) -> list[str]:
        """Tests that enter the changed function, by file, the files and the tests in each by seconds; of what runs on
        import, those that enter the module, then those beside them that enter nothing: they look at values."""
        path, files = str(source(mutant.module)), dict[str, float]()
        found = [
            test
            for test, places in self.entered.items()
            if any(p == path and mutant.function in (None, line) for p, line in places)
        ]
        for test in found:
            name = test.partition("::")[0]
            files[name] = files.get(name, 0.0) + self.seconds[test]
        found.sort(key=lambda t: (files[t.partition("::")[0]], t.partition("::")[0], self.seconds[t]))
        if mutant.function is None:
            found += [t for t, places in self.entered.items() if not places and t.partition("::")[0] in files]
        return found


# -- what there is -----------------------------------------------------------------------------------------


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


def chosen(only: Sequence[str]) -> tuple[list[str], list[str]]:
    """Modules whose names begin so, and the files of tests about their groups."""
    modules = [m for m in MODULES if m.startswith(tuple(only))]
    groups = {m.partition(".")[0] for m in modules}
    tests = [t for group, those in ABOUT.items() if group in groups for t in those]
    return modules, [str(path) for t in tests if (path := TESTS / f"{t}.py").is_file()]


def drawn(n: int, only: Sequence[str] = ("",), draw: int = 0) -> tuple[list[Mutant], str]:
    """`n` mutants of modules whose names begin so, by the hash of their code and its tests."""
    modules, tests = chosen(only)
    digest, every = hashlib.sha256(), []
    for test in tests:
        digest.update(Path(test).read_bytes())
    for module in modules:
        raw = source(module).read_bytes()
        digest.update(raw)
        tree, lines = ast.parse(raw), raw.decode().splitlines()
        for number, (line, what, _) in enumerate(mutations.changes(tree)):
            if (module, lines[line - 1].strip(), what) not in EQUIVALENT:
                every.append(Mutant(module, number, line, what, function_at(tree, line)))
    seed = digest.hexdigest()[:16] + (f"-{draw}" if draw else "")
    return random.Random(seed).sample(every, min(n, len(every))), seed


# -- running -----------------------------------------------------------------------------------------------


def fork(work: Callable[[], int], folder: Path) -> int:
    """Do work in a fork whose output goes to `folder`/log; return its process id. Its exit code is what work
    returns, 99 after an exception."""
    if pid := os.fork():
        return pid
    code = 99
    try:
        covering.alone(folder)
        sink = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        code = work()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def session(files: Sequence[str], work: Callable[[dict[str, Any]], None]) -> int:
    """Collect the tests of files in this process and hand them to `work`."""
    import pytest

    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", f"--rootdir={TESTS.parent}"]
    return int(pytest.main([*options, *files], plugins=[covering.Session(work, LONG)]))


class Job:
    """One run: what is known of the tests, and what became of the mutants."""

    def __init__(self, args: argparse.Namespace, out: Any, folder: Path) -> None:
        self.jobs, self.out, self.folder = args.jobs, out, folder
        self.modules, self.files = chosen(args.only.split(","))
        self.until = time.monotonic() + 60 * args.minutes if args.minutes else None
        self.known = Known()
        self.noticed, self.survived, self.left = 0, list[Mutant](), 0

    def say(self, text: str) -> None:
        """A line for whoever watches, also from a fork whose output goes elsewhere."""
        print(text, file=self.out, flush=True)

    def observe(self, items: dict[str, Any], functions: dict[str, list[FunctionType]]) -> None:
        """Run all tests on the code as it is, divided by file among the processes."""
        files: dict[str, list[Any]] = {}
        for test, item in items.items():
            files.setdefault(test.partition("::")[0], []).append(item)
        remembering, since = covering.caches(), time.monotonic()
        gc.freeze()  # what is there stays: each fork would copy all of it to look. No function is found after this
        waiting, running = sorted(files, key=lambda f: -len(files[f])), dict[int, str]()
        while waiting or running:
            while waiting and len(running) < self.jobs:
                name = waiting.pop(0)
                place = self.folder / Path(name).stem

                def work(those: list[Any] = files[name], place: Path = place) -> int:
                    covering.observe(those, functions, remembering, place / "known.json")
                    return 0

                running[fork(work, place)] = name
            pid, status = os.wait()
            name = running.pop(pid)
            place = self.folder / Path(name).stem
            if os.waitstatus_to_exitcode(status):
                self.known.failed.append(name)
            else:
                seconds, entered, failed = json.loads((place / "known.json").read_text())
                self.known.seconds |= seconds
                self.known.entered |= {test: {(p, n) for p, n in those} for test, those in entered.items()}
                self.known.failed += failed
            if self.known.failed:
                self.say((place / "log").read_text(errors="replace")[-3000:])
        total = sum(self.known.seconds.values())
        self.say(
            f"{len(self.known.seconds)} tests, {total:.0f} CPU seconds, in {time.monotonic() - since:.0f} s"
        )

    def functions(self) -> dict[str, list[FunctionType]]:
        """The live functions of the modules, which are imported for that."""
        for module in self.modules:
            importlib.import_module(f"icr_tasks.{module}")
        return covering.live([source(module) for module in self.modules])

    def run(self, mutants: Sequence[Mutant], work: Callable[[Mutant, list[str]], int]) -> None:
        """Each mutant in a fork; `work` exits with 0 where no test fails."""
        waiting, running = list(enumerate(mutants)), dict[int, tuple[Mutant, Path]]()
        while waiting or running:
            if waiting and self.until is not None and time.monotonic() > self.until:
                self.left += len(waiting)
                waiting.clear()
            while waiting and len(running) < self.jobs:
                number, mutant = waiting.pop(0)
                tests, place = self.known.of(mutant), self.folder / f"mutant-{number}"
                if tests:
                    running[fork(lambda m=mutant, t=tests: work(m, t), place)] = mutant, place  # type: ignore[misc]
                else:
                    self.lives(mutant, "no test enters it")
            if not running:
                continue
            pid, status = os.wait()
            mutant, place = running.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if code == _BROKEN:
                self.known.failed.append(f"{mutant} cannot be made: is the tree being edited?")
            elif code:
                self.noticed += 1
            else:
                self.lives(mutant)
            shutil.rmtree(place, ignore_errors=True)

    def lives(self, mutant: Mutant, why: str = "") -> None:
        """Say a survivor."""
        self.survived.append(mutant)
        text = source(mutant.module).read_text().splitlines()[mutant.line - 1].strip()
        self.say(f"survived: {mutant.module}:{mutant.line} {mutant.what} {why}\n    {text}")

    def collected(self, mutants: Sequence[Mutant], items: dict[str, Any]) -> None:
        """In the session of all tests: see what they enter, then the mutants of functions."""
        functions = self.functions()
        self.observe(items, functions)
        odd = [test for test in self.known.failed if "::" in test]
        if (
            odd and len(odd) <= len(self.known.seconds) // 50
        ):  # one that fails now and then, or needs its file's others
            self.say("fail here on the code as it is and are left out: " + ", ".join(odd))
            self.known.failed = [name for name in self.known.failed if name not in odd]

        def work(mutant: Mutant, tests: list[str]) -> int:
            path = str(source(mutant.module))
            try:
                covering.exchange(functions[path], mutant.tree(), path)
            except (KeyError, ValueError, SyntaxError) as error:
                print(type(error), error)
                return _BROKEN
            return int(covering.notices([items[test] for test in tests], self.known.seconds))

        if not self.known.failed:
            self.run([m for m in mutants if m.function is not None], work)

    def on_import(self, mutant: Mutant, tests: list[str]) -> int:
        """In a process without the module: it is imported changed."""
        path = source(mutant.module)
        sys.meta_path.insert(0, mutations.Finder(f"icr_tasks.{mutant.module}", path, mutant.tree()))  # type: ignore[arg-type]
        failed = True

        def work(items: dict[str, Any]) -> None:
            nonlocal failed
            failed = covering.notices([items[test] for test in tests], self.known.seconds)

        files = dict.fromkeys(str(TESTS / Path(test.partition("::")[0]).name) for test in tests)
        session(list(files), work)
        return int(failed)


def whole(args: argparse.Namespace, mutants: Sequence[Mutant], job: Job) -> None:
    """Functions first, in a fork that has imported everything and reports by a file; then what runs on import."""
    report = job.folder / "session.json"

    def work() -> int:
        session(job.files, lambda items: job.collected(mutants, items))
        known = job.known
        entered = {test: sorted(places) for test, places in known.entered.items()}
        survived = [mutants.index(m) for m in job.survived]
        report.write_text(json.dumps([known.seconds, entered, known.failed, job.noticed, survived, job.left]))
        return 0

    pid = fork(work, job.folder / "session")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code or not report.is_file():
        log = (job.folder / "session" / "log").read_text(errors="replace")
        job.say(f"the session of all tests ended with {code}\n{log[-3000:]}")
        job.known.failed.append("the session of all tests")
        return
    seconds, entered, failed, job.noticed, survived, job.left = json.loads(report.read_text())
    job.known = Known(
        seconds, {test: {(p, n) for p, n in places} for test, places in entered.items()}, failed
    )
    job.survived = [mutants[i] for i in survived]
    if not failed:
        job.run([m for m in mutants if m.function is None], job.on_import)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 where too few mutants were noticed, 2 where the tests fail on the code itself."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=300, help="how many mutants")
    parser.add_argument("--draw", type=int, default=0, help="other mutants of the same tree")
    parser.add_argument("--floor", type=float, default=FLOOR, help="share that must be noticed")
    parser.add_argument(
        "--by-chance", type=float, help="fail only for a count less probable than this at the floor"
    )
    parser.add_argument("--only", default="", help="of modules whose names begin so: metrics,leaderboard")
    parser.add_argument("--minutes", type=float, help="start none after this long; what was not run is said")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    os.environ.update(ICR_LMEVAL_AUTOLOAD="0", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    os.chdir(TESTS.parent)
    started = time.monotonic()
    mutants, seed = drawn(args.n, args.only.split(","), args.draw)
    print(f"{len(mutants)} mutants, seed {seed}", flush=True)
    for name in PRELOAD:
        try:
            importlib.import_module(name)
        except ImportError:
            print(f"{name} is not installed: its tests skip")
    with tempfile.TemporaryDirectory() as folder, os.fdopen(os.dup(1), "w") as out:
        job = Job(args, out, Path(folder))
        whole(args, mutants, job)
    if job.known.failed:
        print("fail on the code as it is:", *job.known.failed, sep="\n  ")
        return 2
    of = job.noticed + len(job.survived)
    if job.left:
        print(f"{job.left} of {len(mutants)} mutants not run: {args.minutes:g} minutes are over")
    print(
        f"{job.noticed} of {of} mutants noticed ({100 * job.noticed / max(of, 1):.1f} %), floor {100 * args.floor:g} %",
        end="",
    )
    print(f" less what is chance in {1 / args.by_chance:g} trees" if args.by_chance else "")
    print(f"{time.monotonic() - started:.0f} s", flush=True)
    return 0 if (of or args.by_chance) and passes(job.noticed, of, args.floor, args.by_chance) else 1


if __name__ == "__main__":
    sys.exit(main())
