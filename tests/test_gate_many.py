"""Many gates: a folder of settings in one call, many checkpoints against one baseline, and confirmation."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import gatekit
import numpy as np
import pytest

from icr_tasks.cli import main
from icr_tasks.leaderboard.pairs import baseline
from icr_tasks.leaderboard.pairs.looks import PLANNED, spent
from icr_tasks.leaderboard.stats import Design, holm

SETTINGS = ("full", "rag@4k", "kv:snapkv@0.5")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with a pinned baseline for three settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    for setting in SETTINGS:
        folder = gatekit.write(tmp_path / "results", gatekit.rows(), setting=setting)
        assert main(["baseline", "set", "main", str(folder)]) == 0
    return tmp_path


def _new(
    here: Path, name: str = "new", right: dict[str, float] | None = None, model: str = "org/new"
) -> Path:
    for setting in SETTINGS:
        level = (right or {}).get(setting)
        rows = gatekit.rows() if level is None else gatekit.rows(seed=1, right=level)
        gatekit.write(here / name, rows, model=model, setting=setting)
    return here / name


# ---- a folder of settings ------------------------------------------------------------------------


def test_a_folder_of_settings_is_gated_in_one_call(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "summary.md"))
    assert main(["gate", str(_new(here)), "--baseline", "main"]) == 0
    out = capsys.readouterr().out
    assert "→ PASS: 3 runs: 3 PASS" in out
    assert main(["gate", str(_new(here, right={"rag@4k": 0.4})), "--baseline", "main"]) == 1
    found = json.loads((here / "gate/gate.json").read_text())
    assert (found["verdict"], found["exit_code"]) == ("REGRESSED", 1)
    assert {r["candidate"]["setting"]: r["verdict"] for r in found["runs"]} == {
        "full": "PASS",
        "rag@4k": "REGRESSED",
        "kv:snapkv@0.5": "PASS",
    }
    text = (here / "gate/gate.md").read_text()
    assert text.count("| ✅ PASS |") == 2 and text.count("| ❌ REGRESSED |") == 1 and "`rag@4k`" in text
    assert (here / "summary.md").read_text().count("## ❌ REGRESSED\n\n3 runs") == 1
    suites = ElementTree.parse(here / "gate/gate.xml").getroot()
    cases = [(c.get("classname"), c.get("name")) for c in suites.iter("testcase")]
    assert len(set(cases)) == len(cases) == 15  # a case of one setting is none of another
    assert len({suite.get("name") for suite in suites}) == 3
    assert suites.tag == "testsuites" and [s.get("failures") for s in suites] == ["0", "0", "5"]
    assert len(list((here / "gate").glob("*/gate.svg"))) == 3


def test_a_setting_without_a_baseline_is_not_comparable(here: Path) -> None:
    new = _new(here)
    gatekit.write(new, gatekit.rows(), model="org/new", setting="none")
    assert main(["gate", str(new), "--baseline", "main"]) == 4
    found = json.loads((here / "gate/gate.json").read_text())
    assert sorted(r["verdict"] for r in found["runs"]) == ["NOT COMPARABLE", "PASS", "PASS", "PASS"]


def test_a_folder_of_baselines_is_matched_by_setting(here: Path) -> None:
    assert main(["gate", str(_new(here)), "--baseline", str(here / "results")]) == 0


# ---- many checkpoints ----------------------------------------------------------------------------


def test_looks_never_spend_more_than_alpha() -> None:
    for upto in (1, 10, 50, 51, 1000, 100_000):
        assert sum(spent(k, 0.05) for k in range(1, upto + 1)) <= 0.05 + 1e-12
    assert spent(1, 0.05) > 0.01 and spent(PLANNED, 0.05) >= 0.0004


def test_record_counts_looks_in_the_baseline_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (
        gatekit.write(here / n, gatekit.rows(seed=s), model=f"org/{n}") for n, s in (("one", 3), ("two", 4))
    )
    for run, look in ((one, 1), (two, 2), (one, 1)):  # the same items again are no new look
        main(["gate", str(run), "--baseline", "main", "--record"])
        assert (
            f"note: look {look}: a regression needs p below {spent(look, 0.05):.2g}"
            in capsys.readouterr().err
        )
    pins = {p.setting: p for p in baseline.read(here / "baselines", "main")}
    assert [look["model"] for look in pins["full"].looks] == ["org/one", "org/two"] and not pins[
        "rag@4k"
    ].looks
    main(["gate", str(two), "--baseline", "main"])
    assert "2 looks at this baseline were recorded" in capsys.readouterr().err
    main(["gate", str(two), "--baseline", "main", "--look", "40"])
    assert "look 40" in capsys.readouterr().err
    pins = {p.setting: p for p in baseline.read(here / "baselines", "main")}
    assert len(pins["full"].looks) == 2  # not recorded
    assert main(["gate", str(two), "--baseline", str(one), "--record"]) == 2
    assert "--record counts looks in a baseline file" in capsys.readouterr().err


def test_a_large_drop_is_found_at_the_fiftieth_look(here: Path) -> None:
    new = gatekit.write(here / "bad", gatekit.rows(seed=1, right=0.4), model="org/bad")
    assert main(["gate", str(new), "--baseline", "main", "--look", "50"]) == 1


@cache
def test_a_look_says_what_its_level_cannot_reach(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six questions reach alpha, and never the level of the fiftieth look."""
    name = "icr_loong_fin"
    few = {k: v if k != name else v[:12] for k, v in gatekit.rows().items()}
    for place, model in (("few", "org/base"), ("other", "org/new")):
        gatekit.write(
            here / place,
            few,
            model=model,
            change=lambda run: run["tasks"][name].update(n_expected=12, status="complete"),
        )
    for row in few[name]:
        row["resp_hash"] = row["resp_hash"][::-1]
    gatekit.write(
        here / "other",
        few,
        model="org/new",
        change=lambda run: run["tasks"][name].update(n_expected=12, status="complete"),
    )
    gate = ["gate", str(here / "other"), "--baseline", str(here / "few")]
    main(gate)
    assert "no result could be called" not in capsys.readouterr().err
    main([*gate, "--look", "50"])
    said = capsys.readouterr().err
    assert "Loong-Fin: no result could be called a regression at alpha 0.00041 (6 questions" in said


def _series(looks: int = 50, series: int = 120) -> np.ndarray:
    """Smallest Holm-adjusted one-sided p of each look at an unchanged model: suite and two datasets of 100
    questions at 6 depths; every checkpoint is another draw, the baseline is shared."""
    rng = np.random.default_rng(4)
    dataset, question, depth = (x.ravel() for x in np.meshgrid(range(2), range(100), range(6), indexing="ij"))
    cluster = dataset * 100 + question
    designs = [(Design(cluster, None, dataset), np.ones(1200, bool))]
    designs += [(Design(question[dataset == s]), dataset == s) for s in range(2)]
    level = 0.4 - 0.08 * depth

    def drawn(difficulty: np.ndarray) -> np.ndarray:
        own = difficulty + rng.normal(0, 0.8, 200)
        return (rng.random(1200) < 1 / (1 + np.exp(-(own[cluster] + level)))).astype(float)

    found = np.empty((series, looks))
    for s in range(series):
        difficulty = rng.normal(0, 1.6, 200)
        base = drawn(difficulty)
        for k in range(looks):
            d = drawn(difficulty) - base
            found[s, k] = min(holm([design.effect(d[at]).p_less for design, at in designs]))
    return found


def test_fifty_checkpoints_raise_no_more_false_alarms_than_one() -> None:
    p = _series()
    levels = np.array([spent(k, 0.05) for k in range(1, 51)])
    assert (p < 0.05).any(1).mean() > 0.25  # what each look at alpha would do
    assert (p < levels).any(1).mean() <= 0.05 + 0.02


# ---- confirmation --------------------------------------------------------------------------------


def test_a_regression_can_be_asked_for_twice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = gatekit.write(here / "bad", gatekit.rows(seed=1, right=0.4), model="org/new")
    same = gatekit.write(here / "same", gatekit.rows(seed=2, right=0.4), model="org/new")
    good = gatekit.write(here / "good", gatekit.rows(), model="org/new")
    gate = ["gate", str(bad), "--baseline", "main", "--confirm"]
    assert main(gate) == 3  # still to be made
    said = capsys.readouterr()
    assert "to be confirmed" in said.out and "lm_eval --tasks icr_helmet_rag_nq_4k" in said.err
    assert main([*gate, str(same)]) == 1
    assert main([*gate, str(good)]) == 3
    assert "not confirmed by the second evaluation" in capsys.readouterr().out
    assert main([*gate, str(bad)]) == 2 and main([*gate, str(here / "results")]) == 2
    assert main(["gate", str(good), "--baseline", "main", "--confirm"]) == 0


def _evaluated(stamp: str, seconds: float) -> Any:
    def change(run: dict[str, Any]) -> None:
        for sheet in run["tasks"].values():
            sheet |= {"evaluated": stamp, "seconds": {"wall": seconds}}

    return change


def test_one_evaluation_given_twice_confirms_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copied folder has the same stamp, answers of a store the same seconds; a rerun has its own of both."""
    made = {}
    for name, stamp, seconds in (
        ("bad", "2026-01-02T03-04-05.1", 12.3456),
        ("copy", "2026-01-02T03-04-05.1", 12.3456),
        ("stored", "2026-01-03T03-04-05.1", 12.3456),
        ("rerun", "2026-01-03T03-04-05.1", 12.4001),
    ):
        rows = gatekit.rows(seed=1, right=0.4)
        made[name] = gatekit.write(here / name, rows, model="org/new", change=_evaluated(stamp, seconds))
    gate = ["gate", str(made["bad"]), "--baseline", "main", "--confirm"]
    assert main([*gate, str(made["copy"])]) == 2
    assert "both hold the evaluation of 2026-01-02T03-04-05.1" in capsys.readouterr().err
    assert main([*gate, str(made["stored"])]) == 2
    assert "generated once" in capsys.readouterr().err
    assert main([*gate, str(made["rerun"])]) == 1
    assert "the same answers, byte for byte" in capsys.readouterr().err
    noise = ["gate", str(made["copy"]), "--baseline", str(made["bad"]), "--aa"]
    assert main(noise) == 4 and "not a repetition" in capsys.readouterr().err
    assert main([noise[0], str(made["rerun"]), *noise[2:]]) == 0


def test_a_second_evaluation_that_cannot_be_compared_confirms_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was said to be "not confirmed" by a run that was not compared at all."""
    bad = gatekit.write(here / "bad", gatekit.rows(seed=1, right=0.4), model="org/new")
    half = {task: rows[:30] for task, rows in gatekit.rows(seed=2, right=0.4).items()}
    again = gatekit.write(here / "half", half, model="org/new")
    assert main(["gate", str(bad), "--baseline", "main", "--confirm", str(again)]) == 2
    assert "cannot be compared with the baseline: the candidate is partial" in capsys.readouterr().err


# ---- names ---------------------------------------------------------------------------------------


def test_a_candidate_named_twice_is_judged_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = gatekit.write(here / "bad", gatekit.rows(seed=1, right=0.4), model="org/new")
    (here / "link").symlink_to(here / "bad")
    assert main(["gate", str(bad), str(here / "bad"), str(here / "link"), "--baseline", "main"]) == 1
    said = capsys.readouterr()
    assert said.out.count("icr gate ") == 1 and "runs: a regression" not in said.err


def test_copies_of_a_run_have_reports_of_their_own(here: Path) -> None:
    for name in ("a", "b"):
        gatekit.write(here / "both" / name, gatekit.rows(seed=1, right=0.4), model="org/new")
    assert main(["gate", str(here / "both"), "--baseline", "main"]) == 1
    names = sorted(p.parent.name for p in (here / "gate").rglob("gate.json"))
    assert len(names) == 3 and names[1] == f"{names[0]}-copy2" or names[2] == f"{names[1]}-copy2"


def test_a_fingerprint_that_is_a_path_leaves_the_reports_in_their_folder(here: Path) -> None:
    for setting in SETTINGS[:2]:
        folder = gatekit.write(here / "new", gatekit.rows(), model="org/new", setting=setting)
        head = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(head | {"fingerprint": "../../x"}))
    main(["gate", str(here / "new"), "--baseline", "main", "-o", str(here / "deep/er/gate")])
    wrote = [p.relative_to(here) for p in here.rglob("gate.json")]
    assert len(wrote) == 3 and all(p.parts[:3] == ("deep", "er", "gate") for p in wrote)


def test_a_folder_with_a_blank_in_its_name_is_a_baseline(here: Path) -> None:
    (here / "results").rename(here / "my results")
    new = _new(here)
    assert main(["gate", str(new), "--baseline", "my results"]) == 0
