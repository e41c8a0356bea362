"""Error rates on a simulated evaluation shaped like HELMET-RAG, and what the usual tests do there.

Population: 4 datasets x 5 lengths x 100 questions x 6 depths (one dataset 3), the same questions at every
length and depth; logit = 0.4 + question (sd 1.6) + length and depth slopes + checkpoint-by-question (sd 0.8)
+ checkpoint-by- question-by-length (sd 0.3). "No change" means that both checkpoints are draws from the same
population.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from icr_tasks.leaderboard.stats import Design

RUNS = 1500
DEPTHS = (6, 3, 6, 6)
LENGTHS, QUESTIONS = 5, 100


def _labels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = [
        (f"{s}-{q}", length, s)
        for s, depths in enumerate(DEPTHS)
        for length in range(LENGTHS)
        for q in range(QUESTIONS)
        for _ in range(depths)
    ]
    cluster, cell, dataset = (np.array(column) for column in zip(*rows, strict=True))
    return cluster, cell, dataset


def _differences(rng: np.random.Generator, drop: float) -> np.ndarray:
    """One pair of checkpoints: new - base per item, the new one lower by `drop` logits."""
    parts = []
    for depths in DEPTHS:
        question = rng.normal(0.4, 1.6, QUESTIONS)
        slopes = np.linspace(0.4, -0.6, LENGTHS)[:, None, None] + np.linspace(0.2, -0.2, depths)
        scores = []
        for shift in (0.0, drop):
            own = question + rng.normal(0, 0.8, QUESTIONS) + rng.normal(0, 0.3, (LENGTHS, QUESTIONS)) - shift
            p = 1 / (1 + np.exp(-(own[:, :, None] + slopes)))
            scores.append(rng.random(p.shape) < p)
        parts.append((scores[1].astype(float) - scores[0]).ravel())
    return np.concatenate(parts)


@cache
def _simulated(drop: float, runs: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20260101)
    cluster, cell, dataset = _labels()
    ours, by_item = Design(cluster, cell, dataset), Design(np.arange(len(cluster)), cell, dataset)
    first = (dataset == 0) & (cell == 2)
    one_cell, cell_items = Design(cluster[first]), Design(np.arange(first.sum()))
    found = []
    for _ in range(runs):
        d = _differences(rng, drop)
        macro, single = ours.effect(d), one_cell.effect(d[first])
        low, high = macro.ci(0.9)
        found.append(
            (
                macro.p,
                by_item.effect(d).p,
                single.p,
                cell_items.effect(d[first]).p,
                macro.p_less,
                macro.mean,
                low,
                high,
            )
        )
    names = ("macro", "macro by item", "cell", "cell by item", "less", "mean", "low", "high")
    return dict(zip(names, np.array(found).T, strict=True))


def _rejected(p: np.ndarray) -> float:
    return float(np.mean(p < 0.05))


def test_ours_holds_its_level() -> None:
    found = _simulated(0.0, RUNS)
    assert 0.03 <= _rejected(found["macro"]) <= 0.07
    assert 0.03 <= _rejected(found["cell"]) <= 0.07
    assert 0.03 <= _rejected(found["less"]) <= 0.07
    covered = np.mean((found["low"] <= 0) & (found["high"] >= 0))
    assert 0.87 <= covered <= 0.93


def test_pairing_items_without_clusters_raises_false_alarms() -> None:
    found = _simulated(0.0, RUNS)
    assert _rejected(found["macro by item"]) > 0.20
    assert _rejected(found["cell by item"]) > 0.10


def test_a_real_drop_is_found() -> None:
    found = _simulated(0.2, 300)
    assert -0.04 < found["mean"].mean() < -0.02
    assert _rejected(found["less"]) > 0.75


# ---- groups of any size --------------------------------------------------------------------------
# A share `rho` of an item's variance is common to its group, the rest is its own; normal scores, or -1, 0, 1.

SHARES = (0.0, 0.05, 0.3, 0.9)
DRAWN = 700


def _lognormal(sd: float, groups: int) -> list[int]:
    drawn = np.exp(np.random.default_rng(5).normal(1.5, sd, groups))
    return np.maximum(1, drawn).astype(int).tolist()


OFFICIAL = {
    "HELMET cell, 100 questions at 3 depths": [3] * 100,
    "HELMET cell, 100 questions at 6 depths": [6] * 100,
    "InfiniteBench mc, 229 questions on 58 books": [4] * 50 + [3] * 7 + [8],
    "LongBench-v2, 503 questions, some share a document": [1] * 380 + [2] * 50 + [3] * 6 + [5],
}
HARD = {
    "one book of 300, 60 of one": [300] + [1] * 60,
    "one of 120, 60 of two": [120] + [2] * 60,
    "60 lognormal 1.5": _lognormal(1.5, 60),
    "60 lognormal 1.0": _lognormal(1.0, 60),
    "200 lognormal 1.5": _lognormal(1.5, 200),
    "3 x 50, 20 x 5, 100 x 1": [50] * 3 + [5] * 20 + [1] * 100,
    "10 between 2 and 29": [3, 29, 11, 7, 25, 18, 2, 14, 9, 21],
    "Loong's groups of filings as clusters": [245, 15, 15, 10, 5, 5],
    "5 equal": [12] * 5,
    "25 equal": [4] * 25,
}


def _outcomes(
    sizes: list[int], rho: float, steps: bool, power: float = 0.0
) -> tuple[float, float, float, float]:
    """(effective groups, coverage of the 95 % interval, one-sided type I at 5 %, width to an oracle's); variances
    grow with a group's size to this `power`."""
    rng = np.random.default_rng([len(sizes), sum(sizes), round(100 * rho), steps])
    group = np.repeat(np.arange(len(sizes)), sizes)
    spread = np.array(sizes, float) ** (power / 2)
    spread /= np.sqrt(np.mean(spread**2))
    design = Design(group)
    covered, less, half, mean = [], [], [], []
    for _ in range(DRAWN):
        common = rng.normal(size=len(sizes)) * np.sqrt(rho)
        d = (common[group] + rng.normal(size=len(group)) * np.sqrt(1 - rho)) * spread[group]
        effect = design.effect((d > 1.15) - (d < -1.15) * 1.0 if steps else d)
        covered.append(abs(effect.mean) <= effect.half(0.95))
        less.append(effect.p_less < 0.05)
        half.append(effect.half(0.95))
        mean.append(effect.mean)
    wide = float(np.median(half)) / (1.96 * float(np.std(mean)))
    return design.effective, float(np.mean(covered)), float(np.mean(less)), wide


@cache
def _of(name: str, rho: float, steps: bool) -> tuple[float, float, float, float]:
    return _outcomes((OFFICIAL | HARD)[name], rho, steps)


@pytest.mark.parametrize("steps", [False, True], ids=["normal", "0/1"])
@pytest.mark.parametrize("rho", SHARES)
@pytest.mark.parametrize("name", [*OFFICIAL, *HARD])
def test_any_sizes_of_groups_hold_the_level(name: str, rho: float, steps: bool) -> None:
    effective, covered, less, wide = _of(name, rho, steps)
    noise = 0.016  # two standard errors of a share of 5 % in 700 draws
    assert covered >= 0.93 - noise / 2 and less <= 0.07
    if effective >= 20:
        assert covered <= 0.97 + noise and less >= 0.03 - noise and wide <= 1.3
    elif rho >= 0.3:  # where the data tell what is shared, even a dominating group costs little
        assert wide <= 2.0


@pytest.mark.parametrize("name", ["60 lognormal 1.0", "200 lognormal 1.5", "25 equal"])
def test_unequal_groups_are_covered_as_often_as_equal_ones(name: str) -> None:
    """5,600 draws over all shares and scores: two standard errors of the mean are 0.6 points. The larger of model
    and sandwich would cover 97.0 %."""
    covered = np.mean([_of(name, rho, steps)[1] for rho in SHARES for steps in (False, True)])
    assert 0.944 <= covered <= 0.965


@pytest.mark.parametrize("rho", (0.05, 0.3))
def test_large_groups_that_vary_more_are_not_believed_to_vary_alike(rho: float) -> None:
    """Variances in proportion to a group's size, which the working model does not know: its estimate alone would
    cover 8 and 74 %; that it is never below the sandwich keeps about 93 %."""
    effective, covered, less, _ = _outcomes(HARD["60 lognormal 1.0"], rho, False, 1.0)
    assert effective >= 20 and covered >= 0.9 and less <= 0.09


# ---- items that share filings --------------------------------------------------------------------


def _filings(folder: Path | None) -> list[list[str]]:
    """Documents of each Loong item: the real ones, or made ones of the same make-up (records of 2 to 9 names
    out of a few sets, five questions a set)."""
    if folder is None:
        rng = np.random.default_rng(3)
        names = [f"c{i}" for i in range(189)]
        return [
            docs
            for size, sets in ((2, 5), (3, 23), (5, 5), (6, 12), (9, 9), (4, 5))
            for _ in range(sets)
            for docs in [list(rng.choice(names[: 40 * size], size, replace=False))] * 5
        ]
    with gzip.open(folder / "loong" / "loong_1600_questions.jsonl.gz") as file:
        rows = [json.loads(line) for line in file]
    return [r["doc"] for r in rows if r["type"] == "financial" and r["language"] == "en"]


@cache
def _shared_filings(folder: Path | None) -> tuple[Design, np.ndarray]:
    shared = _filings(folder)
    names = sorted({name for docs in shared for name in docs})
    reads = np.array([[name in docs for name in names] for docs in shared], float)
    return Design(np.zeros(len(shared)), shared=shared), reads


def _judged(
    folder: Path | None, spread: float, how: str, change: float, draws: int = 700
) -> list[tuple[float, ...]]:
    """Judge differences with noise of 25 points and filing effects of `spread` points, averaged or summed
    over an item's filings: (mean, low, high of 90 %, half of 95 %, p_less)."""
    design, reads = _shared_filings(folder)
    each = reads.sum(1, keepdims=True)
    weight = reads / (each if how == "mean" else np.sqrt(each))
    rng = np.random.default_rng([folder is None, int(spread), len(how)])
    found = []
    for _ in range(draws):
        d = weight @ rng.normal(0, spread, reads.shape[1]) + rng.normal(0, 25, len(reads)) + change
        effect = design.effect(d / 100)
        found.append((effect.mean, *effect.ci(0.9), effect.half(0.95), effect.p_less))
    return found


@pytest.fixture(params=["made", "official"])
def folder(request: pytest.FixtureRequest) -> Path | None:
    return None if request.param == "made" else request.getfixturevalue("shared_data")


@pytest.mark.parametrize("how", ["mean", "root"])
@pytest.mark.parametrize("spread", [0, 10, 20])
def test_items_that_share_filings(folder: Path | None, spread: float, how: str) -> None:
    found = np.array(_judged(folder, spread, how, 0.0))
    covered, less = np.mean(np.abs(found[:, 0]) <= found[:, 3]), np.mean(found[:, 4] < 0.05)
    wide = np.median(found[:, 3]) / (1.96 * found[:, 0].std())
    assert covered >= 0.93 and less <= 0.07 and wide <= 1.3


def test_items_that_share_nothing_are_not_covered_too_often(folder: Path | None) -> None:
    """2,800 draws: two standard errors are 0.6 points. With the degrees of freedom of the shared part alone, which
    is badly known where there is none, 97.9 % on Loong's filings."""
    found = np.array(_judged(folder, 0, "mean", 0.0, draws=2800))
    covered, less = np.mean(np.abs(found[:, 0]) <= found[:, 3]), np.mean(found[:, 4] < 0.05)
    assert 0.94 <= covered <= 0.973 and 0.03 <= less <= 0.06


def test_a_drop_on_loong_is_not_passed_and_a_large_one_is_found(folder: Path | None) -> None:
    five = np.array(_judged(folder, 10, "mean", -5.0))
    assert np.mean(five[:, 1] > -0.05) <= 0.06  # passes margin 5
    ten = np.array(_judged(folder, 10, "mean", -10.0))
    assert np.mean(5 * ten[:, 4] < 0.05) > 0.8  # first of a Holm family of five


# ---- shares near 0 and 1 -------------------------------------------------------------------------


@pytest.mark.parametrize("right", [0.917, 0.96, 0.985, 0.05])
def test_scores_near_the_edge_are_covered_on_both_sides(right: float) -> None:
    rng = np.random.default_rng(11)
    design = Design(range(100))
    ends = np.array([design.score(rng.random(100) < right).ci() for _ in range(3000)])
    above, below = np.mean(ends[:, 0] > right), np.mean(ends[:, 1] < right)
    assert above + below <= 0.07 and max(above, below) <= 0.055
