"""The estimator: against statsmodels, by properties, and at its edges."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks.leaderboard import stats
from icr_tasks.leaderboard.stats import Design


def _ragged(
    seed: int, clusters: int = 60, each: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """d, cluster, cell, dataset with unequal clusters (or `each` items at every length): 3 datasets of 3
    lengths, questions shared over lengths."""
    rng = np.random.default_rng(seed)
    cluster, cell, dataset = [], [], []
    for s in range(3):
        for length, q in itertools.product(range(3), range(clusters // 3)):
            size = each or int(rng.integers(1, 7))
            cluster += [f"{s}-{q}"] * size
            cell += [length] * size
            dataset += [f"set{s}"] * size
    shift = rng.normal(0, 0.3, 1000)[stats.codes(cluster)[0]]
    return shift + rng.normal(0.02, 0.2, len(cluster)), np.array(cluster), np.array(cell), np.array(dataset)


@pytest.mark.parametrize("seed", range(3))
def test_one_cell_equals_statsmodels(seed: int) -> None:
    sm = pytest.importorskip("statsmodels.api")
    d, cluster, _, _ = _ragged(seed, each=4)
    groups = stats.codes(cluster)[0]
    fit = sm.OLS(d, np.ones(len(d))).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    effect = Design(cluster).effect(d)
    assert effect.mean == pytest.approx(fit.params[0], abs=1e-14)
    assert effect.se == pytest.approx(fit.bse[0], rel=1e-12)
    assert effect.p == pytest.approx(fit.pvalues[0], rel=1e-9)
    assert effect.ci(0.9) == pytest.approx(tuple(fit.conf_int(0.1)[0]), rel=1e-9)


def test_macro_equals_statsmodels_contrasts_summed_over_datasets() -> None:
    sm = pytest.importorskip("statsmodels.api")
    d, cluster, cell, dataset = _ragged(7, each=3)
    mean, parts, gs = 0.0, [], []
    for name in np.unique(dataset):
        at = dataset == name
        dummies = np.eye(3)[cell[at]]
        groups = stats.codes(cluster[at])[0]
        kwds = {"groups": groups, "use_correction": False}
        fit = sm.OLS(d[at], dummies).fit(cov_type="cluster", cov_kwds=kwds)
        contrast, g = np.full(3, 1 / 9), groups.max() + 1
        mean += contrast @ fit.params
        parts.append(g / (g - 1) * contrast @ fit.cov_params() @ contrast)
        gs.append(g)
    effect = Design(cluster, cell, dataset).effect(d)
    assert effect.mean == pytest.approx(mean, rel=1e-12)
    assert effect.se == pytest.approx(math.sqrt(sum(parts)), rel=1e-10)
    df = sum(parts) ** 2 / sum(v**2 / (g - 1) for v, g in zip(parts, gs, strict=True))
    assert effect.df == pytest.approx(df, rel=1e-9) and effect.clusters == sum(gs)


def test_adjusted_p_values_equal_statsmodels() -> None:
    multi = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(3).uniform(0, 0.2, 12)
    assert stats.holm(p) == pytest.approx(multi.multipletests(p, method="holm")[1])
    assert stats.benjamini_hochberg(p) == pytest.approx(multi.multipletests(p, method="fdr_bh")[1])
    assert np.isnan(stats.holm([0.1, math.nan])[1]) and stats.holm([0.1, math.nan])[0] == 0.1
    assert np.isnan(stats.benjamini_hochberg([math.nan])).all()


def test_noninferiority_equals_statsmodels_tost() -> None:
    weight = pytest.importorskip("statsmodels.stats.weightstats")
    rng = np.random.default_rng(5)
    new, base = rng.normal(0.5, 0.2, 80), rng.normal(0.5, 0.2, 80)
    lower = weight.ttost_paired(new, base, -0.03, 1.0)[1][1]
    effect = Design(range(80)).effect(new - base)
    assert effect.p_noninferior(0.03) == pytest.approx(lower, rel=1e-9)
    assert (effect.p_noninferior(0.03) < 0.05) == (effect.ci(0.9)[0] > -0.03)


@pytest.mark.parametrize("seed", range(3))
def test_unequal_clusters_stay_near_the_sandwich_and_above_it(seed: int) -> None:
    sm = pytest.importorskip("statsmodels.api")
    d, cluster, _, _ = _ragged(seed)
    fit = sm.OLS(d, np.ones(len(d))).fit(
        cov_type="cluster", cov_kwds={"groups": stats.codes(cluster)[0]}, use_t=True
    )
    effect = Design(cluster).effect(d)
    assert 0.999 * fit.bse[0] <= effect.se < 1.25 * fit.bse[0] and 20 < effect.df <= 60


def test_interval_p_and_margin_are_one_distribution() -> None:
    for seed, sizes in enumerate(([300] + [1] * 60, [7] * 9, range(1, 30), [1] * 200)):
        cluster = np.repeat(np.arange(len(sizes)), list(sizes))
        d = np.random.default_rng(seed).normal(-0.1, 1, len(cluster))
        effect = Design(cluster).effect(d)
        for level in (0.8, 0.95, 0.99, 1 - effect.p):
            low, high = effect.ci(level)
            assert (low > 0 or high < 0) == (effect.p < 1 - level) or effect.p == pytest.approx(1 - level)
        assert effect.p_less == pytest.approx(effect.p_noninferior(0.0) if effect.mean > 0 else effect.p / 2)
        assert effect.test == "t" and effect.mde() > effect.half(0.9)


def test_answers_known_to_be_the_same_add_no_error() -> None:
    same = np.ones(120, bool)
    none = Design(range(120)).effect(np.zeros(120), same=same)
    assert none.test == "identical" and none.ci() == (0, 0) and none.mde() == 0 and none.p == 1
    assert none.p_noninferior(0.01) == 0
    same[7] = False  # the same score by another answer may have been luck
    assert Design(range(120)).effect(np.zeros(120), same=same).se == pytest.approx(1 / 120)
    two = Design(np.arange(120), None, np.repeat(["a", "b"], 60))
    d = np.r_[np.zeros(60), np.tile([1.0, -1.0], 30)]
    half = two.effect(d, same=d == 0)
    assert half.se == pytest.approx(0.5 * Design(range(60)).effect(d[60:]).se)
    assert half.se < two.effect(d).se


def test_documents_that_items_share_in_part() -> None:
    rng = np.random.default_rng(8)
    shared = [[f"f{j}" for j in rng.choice(60, rng.integers(1, 6), replace=False)] for _ in range(300)]
    d = rng.normal(0, 1, 300)
    loose = Design(np.zeros(300), shared=shared).effect(d)
    assert math.isinf(Design(np.zeros(300)).effect(d).se)  # as one component nothing can be said
    assert loose.clusters == 60 and 20 < loose.effective < 60
    least = d.std() / math.sqrt(300)  # of items that share nothing
    assert least < loose.se < 3 * least
    alone = Design(range(300), shared=[[f"f{i}", f"g{i}"] for i in range(300)]).effect(d)
    assert alone.se == pytest.approx(Design(range(300)).effect(d).se, rel=0.02)
    one = Design(range(300), shared=[[f"f{i}"] for i in range(300)])
    assert one.effect(d) == Design(range(300)).effect(d)  # one document an item is a cluster
    assert math.isinf(Design(np.zeros(9), shared=[["a", "b"]] * 9).effect(d[:9]).se)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-1, 1))
def test_properties(seed: int, shift: float) -> None:
    d, cluster, cell, dataset = _ragged(seed)
    effect = Design(cluster, cell, dataset).effect(d)
    swapped = Design(cluster, cell, dataset).effect(-d)
    assert (swapped.mean, swapped.se) == pytest.approx((-effect.mean, effect.se))
    assert swapped.p == pytest.approx(effect.p)
    twice = Design(np.repeat(cluster, 2), np.repeat(cell, 2), np.repeat(dataset, 2)).effect(np.repeat(d, 2))
    assert (twice.mean, twice.se) == pytest.approx((effect.mean, effect.se), rel=0.06)
    moved = Design(cluster, cell, dataset).effect(d + shift)
    assert (moved.mean, moved.se) == pytest.approx((effect.mean + shift, effect.se))
    order = np.random.default_rng(seed).permutation(len(d))
    shuffled = Design(cluster[order], cell[order], dataset[order]).effect(d[order])
    assert (shuffled.mean, shuffled.se, shuffled.df) == pytest.approx((effect.mean, effect.se, effect.df))


def test_weights_are_the_macro_average() -> None:
    # dataset a: lengths of 1 and 3 items; dataset b: one length
    dataset, cell = ["a"] * 4 + ["b"] * 2, ["4k", "8k", "8k", "8k", "4k", "4k"]
    score = np.array([1.0, 0, 0, 0.6, 0.5, 0.7])
    assert Design(range(6), cell, dataset).mean(score) == pytest.approx(((1.0 + 0.2) / 2 + 0.6) / 2)


def test_zero_discordance_is_never_plus_minus_zero() -> None:
    same = Design(range(100)).effect(np.zeros(100))
    assert (
        same.se == pytest.approx(0.01) and same.half(0.9) == pytest.approx(0.0166, abs=1e-4) and same.p == 1
    )
    k = Design(np.arange(200), None, np.repeat(["a", "b"], 100)).effect(
        np.r_[np.zeros(100), np.tile([1, -1.0], 50)]
    )
    assert k.se == pytest.approx(math.hypot(1 / 200, 0.5 * np.std(np.tile([1, -1.0], 50), ddof=1) / 10))
    # one flip in 600 items must not look more certain than none
    assert Design(np.repeat(np.arange(100), 6)).effect(np.eye(600)[0]).se >= 0.01
    # graded scores that differ a little keep their own, smaller error
    graded = np.random.default_rng(0).normal(0, 0.01, 100)
    assert Design(range(100)).effect(graded).se == pytest.approx(graded.std(ddof=1) / 10)


def test_absolute_scores() -> None:
    right = Design(np.repeat(np.arange(50), 2)).score(np.ones(100))
    low, high = right.ci()
    assert (low, high) == pytest.approx((0.92865, 1.0), abs=1e-4)  # Wilson on the 50 questions
    some = Design(range(10)).score([1.0] + [0.0] * 9)
    low, high = some.ci()
    assert 0.0 < low < 0.01 and 0.45 < high < 0.5 and math.isnan(some.p)  # Wilson with t on 9 degrees
    graded = Design(range(10)).score([0.9] + [0.05] * 9)
    assert graded.ci()[0] == 0.0 and not graded.binomial
    many = Design(range(400)).score(np.arange(400) % 2)
    assert many.ci()[1] - 0.5 == pytest.approx(many.half())  # far from the edges: the t interval
    big = Design([0] * 50 + list(range(1, 11))).score(np.ones(60))
    assert big.ci()[0] < 0.3  # 60 right answers, most of them on one book


def test_relative_change_agrees_with_a_bootstrap() -> None:
    rng = np.random.default_rng(2)
    base = rng.binomial(1, 0.6, 400).astype(float)
    new = np.where(rng.random(400) < 0.8, base, rng.binomial(1, 0.2, 400))
    effect = Design(range(400)).relative(new, base)
    drawn = rng.integers(0, 400, (4000, 400))
    ratios = new[drawn].mean(1) / base[drawn].mean(1) - 1
    assert effect.mean == pytest.approx(new.mean() / base.mean() - 1)
    assert effect.se == pytest.approx(ratios.std(), rel=0.06)
    assert math.isnan(Design(range(4)).relative(np.ones(4), np.zeros(4)).mean)


def test_datasets_on_the_same_books_are_one_stratum() -> None:
    rng = np.random.default_rng(4)
    book = rng.normal(0, 1, 50)
    d, cluster = np.r_[book, book], np.r_[np.arange(50), np.arange(50)]
    dataset = np.repeat(["qa", "mc"], 50)
    shared = Design(cluster, None, dataset).effect(d)
    apart = Design(np.arange(100), None, dataset).effect(d)
    assert shared.se == pytest.approx(book.std(ddof=1) / math.sqrt(50))  # nothing is gained by asking twice
    assert apart.se == pytest.approx(shared.se / math.sqrt(2))
    assert shared.df == pytest.approx(49)


def test_mde_and_clusters_needed() -> None:
    # 12 % discordance on 503 items: F's power table says 2.5 points at 5 % discordance
    d = np.zeros(503)
    d[:13], d[13:25] = 1, -1
    effect = Design(range(503)).effect(d)
    assert 100 * effect.mde() == pytest.approx(2.5, abs=0.06)
    assert stats.clusters_needed(effect, effect.mde()) == 503
    assert stats.clusters_needed(effect, effect.mde() / 2) == pytest.approx(4 * 503, abs=1)


def test_edges_fail_or_say_that_they_do_not_know() -> None:
    alone = Design(["book"] * 5).effect(np.array([0, 1, 0, 0, 1.0]))
    assert (
        math.isinf(alone.se)
        and alone.ci() == (-math.inf, math.inf)
        and alone.p == 1
        and math.isinf(alone.mde())
    )
    assert stats.clusters_needed(alone, 0.02) is None and alone.p_noninferior(0.02) == 1
    with pytest.raises(ValueError, match="not finite"):
        Design(range(3)).effect([0.0, math.nan, 1.0])
    with pytest.raises(ValueError, match="label an item"):
        Design([])
    with pytest.raises(ValueError, match="label an item"):
        Design(["a", "b"], ["x"])
