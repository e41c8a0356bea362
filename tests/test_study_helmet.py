"""What the study's page says of files of HELMET's format is what the ledgers in results-helmet/ hold. They stand apart
because nothing but their hash tells such a file from HELMET's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

from icr_tasks.cli import main
from icr_tasks.leaderboard.ledgers.load import load
from icr_tasks.leaderboard.ledgers.summary import Scored, score

ROOT = Path(__file__).resolve().parent.parent
FOLDER, TASK = ROOT / "results-helmet", "icr_helmet_rag_nq_4k"
PART = (
    (ROOT / "docs" / "study.md")
    .read_text(encoding="utf-8")
    .split("### Files of HELMET's format")[1]
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


def test_they_are_of_one_file_and_hold_no_text() -> None:
    heads = [json.loads(path.read_text()) for path in FOLDER.rglob("run.json")]
    of = {(h["tasks"][TASK]["data_revision"], h["tasks"][TASK]["n_scored"]) for h in heads}
    assert len(of) == 1 and of.pop()[1] == 40
    assert len({run.tasks[TASK].item.tobytes() for run in load(FOLDER)}) == 1  # the same questions
    for path in FOLDER.rglob("run.json"):
        assert not re.search(r"/(?:home|root|tmp|work|Users|opt)/", path.read_text(encoding="utf-8")), path
    assert main(["check", str(FOLDER)]) == 0
