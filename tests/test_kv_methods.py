"""KV methods on tensors: attention by hand, properties of the selections, bytes against the actual
tensors."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv import METHODS, kmeans, make  # noqa: E402
from icr_tasks.kv.base import mass  # noqa: E402
from icr_tasks.kv.evict import divide  # noqa: E402

READERS = [name for name, spec in METHODS.items() if not spec.frees]
# judged by what a prefill shows, or by a file (tests/test_kv_scores.py), or keep every token (tests/test_kv_kivi.py)
TOLD = ("duo", "expected", "kvzip", "kivi")
EVICTORS = [name for name, spec in METHODS.items() if spec.frees and name not in TOLD]
HEADS, GROUP, DIM = 2, 3, 8
SCALE = DIM**-0.5


def tensors(n: int, seed: int = 0, group: int = GROUP) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(seed)
    return (
        2 * torch.randn(HEADS, group, DIM, generator=gen),
        2 * torch.randn(HEADS, n, DIM, generator=gen),
        torch.randn(HEADS, n, DIM, generator=gen),
    )


def small(name: str, budget: float | None = None, **knobs: int) -> object:
    given = {"sink": 2, "window": 5, "update": 16, "size": 4, "segment": 64, "page": 4, "kernel": 3, **knobs}
    return make(name, budget, {k: v for k, v in given.items() if k in METHODS[name].params})


def test_attention_by_hand() -> None:
    """Four keys, one head, dimension 1: keys 0, 1, 2, 3 and values 10, 20, 30, 40; the query likes large
    keys."""
    keys = torch.tensor([[[0.0], [1.0], [2.0], [3.0]]])
    values = torch.tensor([[[10.0], [20.0], [30.0], [40.0]]])
    query = torch.ones(1, 1, 1)
    top1 = make("topk", 0.25, {"sink": 1, "window": 1})  # reads key 0, key 3 and the better of keys 1 and 2
    done = top1.attend(query, keys, values, top1.prepare(keys, values), 1.0, mark=True)
    weights = [1, math.e**2, math.e**3]
    assert float(done.out) == pytest.approx((10 + 30 * weights[1] + 40 * weights[2]) / sum(weights), rel=1e-6)
    assert done.seen.tolist() == [[True, False, True, True]]
    assert done.tokens_read == 3
    # all 4 keys are ranked, 3 values read, 4 bytes each
    assert done.bytes_read == (4 + 3) * 4
    kept = mass(query, keys, done.seen, 1.0)
    assert kept == pytest.approx(sum(weights) / (sum(weights) + math.e), rel=1e-6)


def test_estimation_by_hand() -> None:
    """A cluster of two equal keys that is not read is estimated exactly: its centroid is both keys."""
    keys = torch.tensor([[[5.0, 0], [5.0, 0], [0, 1.0], [0, 1.0], [0, 0.1]]])
    values = torch.arange(10.0).view(1, 5, 2)
    query = torch.tensor([[[1.0, 0.3]]])
    cluster = make(
        "cluster", 0.5, {"sink": 0, "window": 1, "update": 1, "size": 2, "estimation": 0.5, "segment": 16}
    )
    zone = cluster.prepare(keys, values)
    assert sorted(zone.index.sizes[0].tolist()) == [2, 2]
    done = cluster.attend(query, keys, values, zone, 1.0)
    exact = torch.softmax(query @ keys.transpose(1, 2), -1) @ values
    torch.testing.assert_close(done.out, exact)
    assert done.tokens_read == 3  # one cluster of two and the window


@pytest.mark.parametrize("name", [n for n in READERS if n != "steady"])
@given(n=st.integers(40, 200), seed=st.integers(0, 9))
@settings(max_examples=8, deadline=None)
def test_full_budget_is_full_attention(name: str, n: int, seed: int) -> None:
    query, keys, values = tensors(n, seed)
    method = small(name, 1.0)
    done = method.attend(query, keys, values, method.prepare(keys, values), SCALE, mark=True)
    exact = torch.softmax(query @ keys.transpose(1, 2) * SCALE, -1) @ values
    torch.testing.assert_close(done.out, exact, atol=1e-5, rtol=1e-4)
    assert done.seen.all()
    assert mass(query, keys, done.seen, SCALE) == pytest.approx(1, abs=1e-5)


@given(n=st.integers(60, 200), seed=st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_mass_grows_with_the_budget_and_topk_is_the_best_set(n: int, seed: int) -> None:
    query, keys, values = tensors(n, seed)
    before = 0.0
    for budget in (0.05, 0.2, 0.5, 0.9):
        method = small("topk", budget)
        zone = method.prepare(keys, values)
        done = method.attend(query, keys, values, zone, SCALE, mark=True)
        got = mass(query, keys, done.seen, SCALE)
        assert got >= before - 1e-6
        before = got
        gen = torch.Generator().manual_seed(seed)
        for _ in range(5):  # any other k tokens of the zone
            other = torch.ones_like(done.seen)
            other[:, zone.start : zone.end] = False
            for head in range(HEADS):
                other[
                    head, zone.start + torch.randperm(zone.end - zone.start, generator=gen)[: zone.retrieve]
                ] = True
            assert other.sum() == done.seen.sum() or zone.retrieve > zone.end - zone.start
            assert got >= mass(query, keys, other, SCALE) - 1e-6


@pytest.mark.parametrize("name", READERS)
def test_sink_window_and_new_tokens_are_always_read(name: str) -> None:
    query, keys, values = tensors(150)
    method = small(name)
    zone = method.prepare(keys[:, :140], values[:, :140])
    done = method.attend(query, keys, values, zone, SCALE, mark=True)
    assert done.seen[:, :2].all()
    assert done.seen[:, 135:].all()
    assert not done.seen.all()


@pytest.mark.parametrize("name", READERS)
def test_bytes_read_match_the_formula(name: str) -> None:
    """One decode step: keys and values of n + 1 tokens exist, n of them were there when the index was
    built."""
    n = 200
    query, keys, values = tensors(n + 1)
    method = small(name)
    zone = method.prepare(keys[:, :n], values[:, :n])
    done = method.attend(query, keys, values, zone, SCALE, mark=True)
    formula = method.formula(n, HEADS, DIM, 4)
    assert formula["stored"] == 2 * keys[:, :n].numel() * 4
    assert formula["index"] == method.index_bytes(zone)
    # clusters near a query are larger than average
    slack = {"cluster": 0.5}.get(name, 0.0)
    assert done.bytes_read == pytest.approx(formula["read"], rel=slack, abs=0)
    assert done.tokens_read * HEADS == int(done.seen.sum())


@pytest.mark.parametrize("name", ["topk", "page", "steady"])
def test_bytes_read_of_values_smaller_than_keys(name: str) -> None:
    query, keys, values = tensors(150)
    done = []
    for stored in (values, values[..., :3].contiguous()):
        method = small(name)
        done.append(method.attend(query, keys, stored, method.prepare(keys, stored), SCALE))
    assert done[0].tokens_read == done[1].tokens_read and done[1].out.shape[-1] == 3
    less = round(done[0].tokens_read * HEADS) * (DIM - 3) * 4
    assert done[0].bytes_read - done[1].bytes_read == less


def test_cluster_index_holds_every_token_once_and_grows() -> None:
    _, keys, values = tensors(300)
    method = small("cluster", 0.1)
    zone = method.prepare(keys[:, :200], values[:, :200])
    assert not method.grow(zone, keys[:, :215], values[:, :215])
    assert method.grow(zone, keys, values)
    assert zone.end == 195 + 6 * 16  # in whole updates, as if it had grown token by token
    index = zone.index
    everything = torch.arange(zone.end - zone.start, dtype=torch.int32)
    for head in range(HEADS):
        assert torch.equal(index.members[head].sort().values, everything)
        assert int(index.sizes[head].sum()) == len(everything)
        inside = (
            index.members[head, int(index.starts[head, 3]) :][: int(index.sizes[head, 3])].long() + zone.start
        )
        torch.testing.assert_close(index.sums[head, 3], values[head, inside].sum(0), atol=1e-5, rtol=1e-4)


def test_fast_index_is_as_good_as_the_naive_one() -> None:
    gen = torch.Generator().manual_seed(1)
    topics = torch.randn(2, 32, 16, generator=gen).repeat_interleave(32, 1)
    keys = topics + 0.5 * torch.randn(2, 1024, 16, generator=gen)

    def closeness(label: torch.Tensor) -> float:
        x, total = kmeans.prepare(keys), 0.0
        for head in range(2):
            total += float(torch.zeros(64, 16).index_add_(0, label[head], x[head]).norm(dim=1).sum())
        return total / 2048

    fast, naive = (closeness(kmeans.BUILDS[name](keys, 1024, 16, 10)) for name in ("fast", "naive"))
    shuffled = closeness(torch.randint(0, 64, (2, 1024), generator=gen))
    assert fast > naive - 0.03 > shuffled + 0.3


@pytest.mark.parametrize("name", EVICTORS)
@given(n=st.integers(40, 120), seed=st.integers(0, 9))
@settings(max_examples=8, deadline=None)
def test_evictors_keep_what_they_say(name: str, n: int, seed: int) -> None:
    _, keys, values = tensors(n, seed)
    queries = torch.randn(HEADS, GROUP, 5, DIM, generator=torch.Generator().manual_seed(seed))
    method = small(name, 0.5)
    kept = method.keep(keys, values, queries, SCALE)
    assert kept.shape == (HEADS, round(0.5 * n))
    assert (kept.diff(dim=1) > 0).all()
    if name in ("keydiff", "streaming"):
        assert (kept[:, :2] == torch.arange(2)).all()
    if name != "streaming":
        assert (kept[:, -5:] == torch.arange(n - 5, n)).all()


def test_snapkv_keeps_what_the_window_attends_to() -> None:
    keys = torch.zeros(1, 40, 4)
    keys[0, 11, 0] = 9.0  # the one key the last queries look for
    queries = torch.zeros(1, 1, 4, 4)
    queries[..., 0] = 9.0
    kept = make("snapkv", 0.2, {"window": 4, "kernel": 3}).keep(keys, keys, queries, 1.0)
    assert {10, 11, 12} <= set(kept[0].tolist())


@given(n=st.integers(30, 90), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_snapkv_is_the_published_one(n: int, seed: int) -> None:
    """From the paper's definition, position by position: attention of the window's queries to each earlier
    key, the mean over its neighbours before the window, the best of each KV head; the window stays."""
    gen = torch.Generator().manual_seed(seed)
    window, kernel, kept = 8, 5, round(0.4 * n)
    queries, keys = (
        torch.randn(HEADS, GROUP, window, DIM, generator=gen),
        torch.randn(HEADS, n, DIM, generator=gen),
    )
    found = make("snapkv", 0.4, {"window": window, "kernel": kernel}).keep(keys, keys, queries, SCALE)
    for head in range(HEADS):
        votes = torch.zeros(n - window)
        for query in range(GROUP):
            for at in range(window):
                seen = keys[head, : n - window + at + 1]
                votes += torch.softmax(seen @ queries[head, query, at] * SCALE, 0)[: n - window]
        near = [float(sum(votes[max(i - 2, 0) : i + 3])) / kernel for i in range(n - window)]
        best = sorted(range(n - window), key=lambda i: -near[i])[: kept - window]
        assert found[head].tolist() == sorted(best) + list(range(n - window, n))


def test_a_knob_that_the_build_ignores_is_refused() -> None:
    with pytest.raises(IcrError, match="rounds= does nothing with build=fast"):
        make("cluster", None, {"rounds": 3, "build": "fast"})
    assert make("cluster", None, {"rounds": 3}).rounds == 3
    with pytest.raises(IcrError, match="floor= does nothing without adaptive"):
        make("snapkv", 0.5, {"floor": 0.5})


@given(n=st.integers(64, 200), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_clusters_are_retroinfers(n: int, seed: int) -> None:
    """From the definition, key by key: centred keys, centres begun at the middle of each stretch, nine rounds
    within the segments with centres of length one, a last choice among all of them."""
    gen = torch.Generator().manual_seed(seed)
    keys, size, segment = torch.randn(1, n, DIM, generator=gen) + 3, 4, 48
    points = (keys[0] - keys[0].mean(0)).tolist()
    centres: list[list[float]] = []
    for start, end, clusters in kmeans.segments(n, segment, size):
        step = (end - start) / clusters
        own = [points[start + min(int(i * step + step / 2), end - start - 1)] for i in range(clusters)]
        for _ in range(9):
            groups: list[list[list[float]]] = [[] for _ in own]
            for x in points[start:end]:
                groups[max(range(clusters), key=lambda c: (_dot(x, own[c]), -c))].append(x)
            for c, members in enumerate(groups):
                if members:
                    mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
                    own[c] = [m / math.sqrt(_dot(mean, mean)) for m in mean]
        centres += own
    expected = [max(range(len(centres)), key=lambda c: (_dot(x, centres[c]), -c)) for x in points]
    found = kmeans.released(keys, segment, size, 10)[0].tolist()
    assert sum(a != b for a, b in zip(expected, found, strict=True)) <= 1  # float32 against float64


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@given(n=st.integers(40, 160), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_pages_are_quests(n: int, seed: int) -> None:
    """From the paper: a page's bound is the sum over dimensions of the larger of q * max and q * min; the pages with
    the largest bounds are read (one query head, so that no rule of groups enters)."""
    query, keys, values = tensors(n, seed, group=1)
    method = small("page", 0.2)
    zone = method.prepare(keys, values)
    done = method.attend(query, keys, values, zone, SCALE, mark=True)
    for head in range(HEADS):
        bounds = []
        for start in range(zone.start, zone.end, 4):
            page, q = keys[head, start : start + 4], query[head, 0]
            bounds.append(
                sum(max(float(q[d] * page[:, d].max()), float(q[d] * page[:, d].min())) for d in range(DIM))
            )
        best = sorted(range(len(bounds)), key=lambda i: -bounds[i])[: method.n_pages(n)]
        seen = {zone.start + 4 * page + i for page in best for i in range(4)}
        assert set(done.seen[head].nonzero().flatten().tolist()) == seen | set(range(zone.start)) | set(
            range(zone.end, n)
        )


@given(seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_heads_divide_a_budget_as_adakv(seed: int) -> None:
    """The best scores of the layer after each head's own floor, sink and window: position by position."""
    gen = torch.Generator().manual_seed(seed)
    scores = [torch.rand(30 + 5 * h, generator=gen) * (h + 1) for h in range(3)]
    found = divide(scores, 12, 0.25, 1, 2)
    assert sum(map(len, found)) == 36
    sure = []
    for one in scores:
        order = sorted(range(len(one)), key=lambda i: (not (i < 1 or i >= len(one) - 2), -float(one[i])))
        sure.append(set(order[:3]))
    rest = sorted(
        ((float(one[i]), h, i) for h, one in enumerate(scores) for i in range(len(one)) if i not in sure[h]),
        reverse=True,
    )[: 36 - 9]
    for _, head, at in rest:
        sure[head].add(at)
    assert [set(one.tolist()) for one in found] == sure


@pytest.mark.parametrize("offset", [0.0, 5.0, 40.0])
def test_bfloat16_scores_are_not_rounded(offset: float) -> None:
    """Keys with a common offset, as large key biases give: scores of hundreds keep their differences."""
    query, keys, values = tensors(150)
    query, keys, values = query.abs().bfloat16(), (keys + offset).bfloat16(), values.bfloat16()
    method = small("topk", 1.0)
    done = method.attend(query, keys, values, method.prepare(keys, values), SCALE)
    exact = torch.softmax(query.float() @ keys.float().transpose(1, 2) * SCALE, -1) @ values.float()
    error = (done.out.float() - exact).norm() / exact.norm()
    assert error < 0.006  # the output's own 8 bits


def test_keydiff_drops_the_average_key() -> None:
    keys = torch.ones(1, 20, 4)
    keys[0, 7] = torch.tensor([-1.0, 1, -1, 1])
    assert 7 in make("keydiff", 0.1).keep(keys, keys, None, 1.0)[0].tolist()


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("duo", "kivi")])
def test_one_rule_for_short_prompts(name: str) -> None:
    """A prompt of which nothing can be left out is read in full by every method; no budget is an error."""
    for budget in (0.001, 0.05, 0.5, 2, 500):
        method = make(name, budget)
        assert not method.applies(1)
        for n in (2, 10, 68, 69, 400):
            if method.applies(n):
                kept = method.n_kept(n) if METHODS[name].frees else 0
                assert kept < n and (kept >= method.sink + method.window or not METHODS[name].frees)
    assert not make("snapkv", 0.05).applies(200) and not make("steady", 0.05).applies(200)
    assert make("snapkv", 100).applies(200) and not make("snapkv", 200).applies(200)
