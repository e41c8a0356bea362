"""The second look at claim 1 of the study: what its file declares is what would run, on questions the first look had not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "results-second"
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


def test_the_rule_is_written_where_the_result_is() -> None:
    page = (FOLDER.parent / "docs" / "study.md").read_text(encoding="utf-8")
    declared = " ".join((FOLDER / "study.yaml").read_text(encoding="utf-8").replace("#", " ").split())
    assert "one-sided at 2.5 %, once, when all 600 items are there" in declared
    assert "one-sided at **2.5 %**, once, when all 600 items" in " ".join(page.split())
    assert f"{100 * (1 - 0.95 * 0.975):.1f} %" in page and "there is no third look" in declared
