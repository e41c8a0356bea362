"""What the study's page says of where its model is at its floor is what the ledgers in results-floor/ hold. Those of files of
HELMET's format stand apart because nothing but their hash tells such a file from HELMET's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

from icr_tasks.cli import main
from icr_tasks.leaderboard.ledgers.load import load
from icr_tasks.leaderboard.ledgers.summary import Scored, score

ROOT = Path(__file__).resolve().parent.parent
FOLDER, TASK = ROOT / "results-floor", "icr_helmet_rag_nq_4k"
PART = (
    (ROOT / "docs" / "study.md")
    .read_text(encoding="utf-8")
    .split("### Where the model is at its floor")[1]
    .split("\n## ")[0]
)


def test_the_page_s_numbers_are_those_of_the_ledgers() -> None:
    runs = {run.setting: run.tasks[TASK] for run in load(FOLDER)}
    means = {setting: 100 * float(task.headline().mean()) for setting, task in runs.items()}
    said = {
        "full": r"Full context ([\d.]+)",
        "gold@only": r"`gold@only` ([\d.]+)",
        "rag@512": r"`rag@512` ([\d.]+)",
        "rag@1k": r"`rag@1k` ([\d.]+)",
        "rag@1k,hybrid,embedder=minilm": r"embedder ([\d.]+)",
        "rag@1k,random": r"random ([\d.]+)",
        "rag@2k": r"`rag@2k` ([\d.]+)",
        "none": r"none ([\d.]+\d)",
    }
    assert {s: float(re.search(pattern, " ".join(PART.split()))[1]) for s, pattern in said.items()} == means  # type: ignore[index]
    for setting in ("full", "gold@only"):
        task = runs[setting]
        effect = score([Scored(TASK, task.sheet, task.cluster, task.headline())])
        assert effect is not None
        mean, low, high = effect.in_points()
        assert f"{mean:.1f} [{low:.1f}, {high:.1f}]" in PART


def test_the_numbers_of_order_are_those_of_the_ledgers() -> None:
    name = "icr_synth_order_4k"
    runs = {run.setting: run.tasks[name] for run in load(FOLDER) if name in run.tasks}
    told = " ".join(PART.split("`icr_synth_order_4k`")[1].split())
    for setting, pattern in (
        ("full", r"full context ([\d.]+)"),
        ("gold@only", r"`gold@only` ([\d.]+)"),
        ("rag@1k", r"`rag@1k` ([\d.]+)"),
        ("none", r"none ([\d.]+\d)"),
    ):
        found = re.search(pattern, told)
        assert found and f"{100 * float(runs[setting].headline().mean()):.1f}" == found[1], setting
    unfinished = [round(100 * task.sheet["n_unfinished"] / task.sheet["n_scored"]) for task in runs.values()]
    assert f"{min(unfinished)} to {max(unfinished)} %" in told and len(runs) == 4


def test_they_are_of_one_file_and_hold_no_text() -> None:
    heads = [json.loads(path.read_text()) for path in FOLDER.rglob("run.json")]
    of = {(name, t["data_revision"], t["n_scored"]) for h in heads for name, t in h["tasks"].items()}
    assert len(of) == 2 and {n for _, _, n in of} == {40}
    assert len({run.tasks[TASK].item.tobytes() for run in load(FOLDER)}) == 1  # the same questions
    for path in FOLDER.rglob("run.json"):
        assert not re.search(r"/(?:home|root|tmp|work|Users|opt)/", path.read_text(encoding="utf-8")), path
    assert main(["check", str(FOLDER)]) == 0
