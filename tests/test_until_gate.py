"""`icr sweep --until-gate`: levels that keep alpha, tokens saved, questions that grow, and the command."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_sweep import TOY, write

from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.leaderboard.pairs.stages import SHARES, levels
from icr_tasks.leaderboard.plan import PRIOR
from icr_tasks.leaderboard.stats import Design

LENGTHS = {"4k": 4, "8k": 8, "16k": 16, "32k": 32, "64k": 64, "128k": 128}
DEPTHS = {"nq": 6, "triviaqa": 6, "popqa": 6, "hotpotqa": 3}
MARGIN = 0.03


def test_levels_are_those_of_the_joint_distribution() -> None:
    """Simulated: the chance that any of five stages is below its level is alpha."""
    rng = np.random.default_rng(0)
    for alpha in (0.05, 0.01):
        steps = rng.normal(0, math.sqrt(0.2), (200_000, 5))
        z = steps.cumsum(1) / np.sqrt(SHARES)
        from scipy import special

        hit = (special.ndtr(-z) < levels(alpha)).any(1).mean()
        assert hit == pytest.approx(alpha, rel=0.06)
    assert levels(0.05, [1.0]) == [pytest.approx(0.05, rel=1e-3)]


@pytest.fixture(scope="module")
def stages() -> list[tuple[np.ndarray, Design]]:
    """The official shape of HELMET-RAG, and the items of each stage: rows of the whole, their design."""
    rows = [
        (f"{d}{q}", d, n, q)
        for d, depths in DEPTHS.items()
        for n in LENGTHS
        for q in range(100)
        for _ in range(depths)
    ]
    number = np.array([r[3] for r in rows])
    found = []
    for share in SHARES:
        at = np.flatnonzero(number < 100 * share)
        cluster, dataset, length = ([rows[i][k] for i in at] for k in (0, 1, 2))
        found.append((at, Design(cluster, length, dataset)))
    return found


def outcomes(
    stages: list[tuple[np.ndarray, Design]], change: float, draws: int
) -> tuple[float, float, float]:
    """Mean share of tokens used, share of REGRESSED and of PASS, for checkpoints that differ by `change`."""
    rng = np.random.default_rng([7, round(1000 * abs(change))])
    whole = stages[-1][1]
    pair = np.unique(whole.cluster * 100 + whole.cell % 6, return_inverse=True)[1]
    spread, at_level = PRIOR[""], levels(0.05)
    used = np.zeros(draws)
    said = np.zeros((draws, 2), bool)
    for k in range(draws):
        d = change + rng.normal(0, math.sqrt(spread.question), whole.clusters)[whole.cluster]
        d = d + rng.normal(0, math.sqrt(spread.length), pair.max() + 1)[pair]
        d = d + rng.normal(0, math.sqrt(spread.noise), len(d))
        for share, level, (at, design) in zip(SHARES, at_level, stages, strict=True):
            effect = design.effect(d[at])
            used[k] = share  # every length and dataset has this share of its questions
            passed = effect.p_noninferior(MARGIN) < level
            if passed or effect.p_less < level:
                said[k] = not passed, passed
                break
    return float(used.mean()), float(said[:, 0].mean()), float(said[:, 1].mean())


def test_tokens_saved_and_errors_on_helmet(stages: list[tuple[np.ndarray, Design]]) -> None:
    """At a margin of 3 points: at least 30 % of the tokens saved where nothing changed, 50 % at -5 points; false
    alarms and false passes at their level."""
    used, alarms, _ = outcomes(stages, 0.0, 250)
    assert used <= 0.70 and alarms <= 0.09
    used, found, passed = outcomes(stages, -0.05, 250)
    assert used <= 0.50 and found >= 0.9 and passed <= 0.03
    _, _, passed = outcomes(stages, -MARGIN, 250)
    assert passed <= 0.09


def test_questions_grow_and_are_the_same_at_every_length() -> None:
    from icr_tasks.benchmarks import catalog
    from icr_tasks.harness.instance import part_of

    benchmark, _ = catalog.find("icr_synth_rag_512")
    ids: dict[str, list[set[str]]] = {}
    for length in ("512", "1k"):
        items = benchmark.load("rag", length).items
        ids[length] = [{i.cluster for i in part_of(items, share)} for share in SHARES]
        assert [len(found) for found in ids[length]] == [20, 40, 60, 80, 100]
        assert all(a < b for a, b in zip(ids[length], ids[length][1:], strict=False))
    assert ids["512"] == ids["1k"]


def test_one_giant_cluster_is_taken_item_by_item() -> None:
    from dataclasses import replace

    from icr_tasks.benchmarks import catalog
    from icr_tasks.harness.instance import part_of

    items = [replace(i, cluster="all") for i in catalog.find("icr_synth_rag_512")[0].load("rag", "512").items]
    assert len(part_of(items, 0.2)) == 20


def run(folder: Path, capsys: pytest.CaptureFixture[str], *args: str, **changes: Any) -> tuple[int, str]:
    path = write(folder, limit=None, **changes)
    code = main(["sweep", str(path), *args])
    return code, capsys.readouterr().out


@pytest.fixture
def pinned(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A baseline of the toy model; the arguments that name it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert run(tmp_path / "base", capsys)[0] == 0
    results = tmp_path / "base" / "out" / "results"
    [folder] = [p.parent for p in results.rglob("run.json")]
    assert main(["baseline", "set", "main", str(folder), "--results", str(results)]) == 0
    return ["--until-gate", "main", "--results", str(results)]


def test_a_checkpoint_that_gives_the_same_answers_stops_at_the_first_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pinned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").mkdir()
    log = tmp_path / "asked.jsonl"
    monkeypatch.setenv("COUNTING_LOG", str(log))
    other = {**TOY, "model_args": {**TOY["model_args"], "pretrained": "next"}}
    code, out = run(tmp_path / "new", capsys, *pinned, "--margin", "40", models=[other])
    assert code == 0 and "PASS at 20 % of the questions" in out
    assert "40 %" not in out


def test_another_dtype_is_refused_and_the_option_that_the_refusal_names_waives_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = (
        {**TOY, "model_args": {**TOY["model_args"], "dtype": name}} for name in ("float32", "bfloat16")
    )
    for name in ("base", "new"):
        (tmp_path / name).mkdir()
    assert run(tmp_path / "base", capsys, models=[one])[0] == 0
    results = tmp_path / "base" / "out" / "results"
    [folder] = [p.parent for p in results.rglob("run.json")]
    assert main(["baseline", "set", "main", str(folder), "--results", str(results)]) == 0
    capsys.readouterr()
    pinned = ["--until-gate", "main", "--results", str(results)]
    path = write(tmp_path / "new", limit=None, models=[other])
    assert main(["sweep", str(path), *pinned, "--margin", "40"]) == 4
    assert "or --allow dtype" in capsys.readouterr().err
    assert main(["sweep", str(path), *pinned, "--margin", "40", "--allow", "dtype"]) == 0
    assert "PASS at 20 % of the questions" in capsys.readouterr().out


def test_what_cannot_be_staged_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pinned: list[str]
) -> None:
    (tmp_path / "new").mkdir()
    path = write(tmp_path / "new", limit=4)
    assert main(["sweep", str(path), *pinned]) == 2 and "leave `limit` out" in capsys.readouterr().err
    path = write(tmp_path / "new", limit=None)
    assert main(["sweep", str(path), *pinned, "--jobs", "2"]) == 2
    path = write(tmp_path / "new", limit=None, settings=["none"])
    assert main(["sweep", str(path), *pinned]) == 4 and "has no run for none" in capsys.readouterr().err


def test_part_is_checked() -> None:
    from icr_tasks.harness.options import Options

    assert Options.parse({"part": "0.4"}).part == 0.4 and Options.parse({}).part == 1.0
    with pytest.raises(IcrError, match="a share of the questions"):
        Options.parse({"part": 2})
