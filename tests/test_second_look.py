"""The second look at claim 1 of the study: what its file declares is what would run, on questions the first look had not."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from icr_tasks.leaderboard.ledgers import load
from icr_tasks.leaderboard.pairs import joined

FOLDER = Path(__file__).resolve().parent.parent / "results-second"
# Imports one of our benchmarks at its top, before anything has loaded them: it stays ours.
OWN = """
import icr_tasks as icr
from icr_tasks.benchmarks import synth

@icr.benchmark("again", title="Again", units="passages", marks_gold=True, chance=None, metrics=icr.metrics.QA,
               prompts=icr.prompts.HELMET, source="synth", license="none", cluster="question")
class Again:
    tasks, files = icr.grid(length=["512"]), None
    def load(self, dataset, length=None, **_):
        return synth.load("rag", length, seed=7, n=3)
"""
# In a process of its own: the study's module registers a benchmark.
PLANNED = """
import json, sys
from pathlib import Path
from icr_tasks.sweep import cells, study
found = study.load(Path(sys.argv[1]))
from icr_tasks.benchmarks import load
ids = {n: [i.id for i in load("fresh", "all", n).items] for n in ("1k", "2k", "4k")}
matrix = [[c.setting, c.prompt, c.task, c.limit, c.gen_kwargs, c.args] for c in cells.matrix(found)]
from icr_tasks.benchmarks.sheets import task_dirs
print(json.dumps({"cells": matrix, "ids": ids, "yamls": sorted(p.name for d in task_dirs()[1:] for p in d.rglob("*k.yaml"))}))
"""


def test_what_is_declared_is_what_would_run() -> None:
    line = [sys.executable, "-P", "-c", PLANNED, str(FOLDER / "study.yaml")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    args = {"pretrained": "SmolLM2-135M-Instruct", "dtype": "float32"}
    assert sorted(map(json.dumps, told["cells"])) == sorted(
        json.dumps([setting, "ao", f"icr_fresh_{length}", None, {"max_gen_toks": 24}, args])
        for setting in ("rag@512", "rag@512,random")
        for length in ("1k", "2k", "4k")
    )
    assert told["yamls"] == ["1k.yaml", "2k.yaml", "4k.yaml"]
    first, *others = told["ids"].values()
    assert len(set(first)) == 100 and all(ids == first for ids in others)
    assert not any(f"-test-0-all-{n}" in one for n in range(100) for one in first)


def test_a_study_may_build_on_a_benchmark_of_ours(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "study.yaml").write_text("imports: [own]\nmodels: [M]\ntasks: [icr_again_512]\n")
    code = (
        "from pathlib import Path; from icr_tasks.sweep import study; study.load(Path('study.yaml')); "
        "from icr_tasks.benchmarks import all_benchmarks; print({b.name: b.origin for b in all_benchmarks()})"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    told = ast.literal_eval(done.stdout)
    assert told.pop("again") == "own" and set(told.values()) == {"icr_tasks"} and len(told) > 10


def test_the_rule_is_written_where_the_result_is() -> None:
    page = (FOLDER.parent / "docs" / "study.md").read_text(encoding="utf-8")
    declared = " ".join((FOLDER / "study.yaml").read_text(encoding="utf-8").replace("#", " ").split())
    assert "one-sided at 2.5 %, once, when all 600 items are there" in declared
    assert "one-sided at **2.5 %**, once, when all 600 items" in " ".join(page.split())
    assert f"{100 * (1 - 0.95 * 0.975):.1f} %" in page and "there is no third look" in declared


def test_the_claim_is_decided_by_the_rule_and_only_when_all_is_there() -> None:
    page = (FOLDER.parent / "docs" / "study.md").read_text(encoding="utf-8")
    runs = {run.setting: run for run in (load.load_run(p.parent) for p in sorted(FOLDER.rglob("run.json")))}
    if not runs:
        assert "It is not finished, so claim 1 stays undecided." in page
        return
    pairs = joined.pair(runs["rag@512,random"], runs["rag@512"], common=True, axis="setting")
    assert not pairs.refusals and len(pairs.new) == 300 and set(pairs.length) == {"1k", "2k", "4k"}
    found = pairs.design(np.ones(300, bool)).effect(pairs.new - pairs.base, same=pairs.same)
    mean, low, high = found.in_points()
    row = next(line for line in page.splitlines() if line.startswith("| second look"))
    assert f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] (300 items, 100 questions)" in row.replace("−", "-")
    p = 1 - found.p_less
    assert f"{p:.4f}" in row.replace("< 0.0001", "0.0000") and ("holds" in row) == (p < 0.025)
