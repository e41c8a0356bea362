"""Sizes, bounds and scores of KV methods against loops over single tokens."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv import make, spec  # noqa: E402
from icr_tasks.registry import KV_METHODS  # noqa: E402

HEADS, GROUP, DIM, SCALE = 2, 3, 4, 0.5


def tensors(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(seed)
    query, keys, values = (torch.randn(HEADS, m, DIM, generator=gen) for m in (GROUP, n, n))
    return query, keys, values


@pytest.mark.parametrize("budget", [0.001, 0.1, 0.5, 1.0, 3, 40])
@pytest.mark.parametrize("n", [*range(1, 16), 33, 64])
def test_what_a_reader_reads_of_a_prompt(n: int, budget: float) -> None:
    share = round(budget * n) if isinstance(budget, float) else min(budget, n)
    sink, window = 2, 5
    topk = make("topk", budget, {"sink": sink, "window": window})
    assert topk.n_retrieved(n) == max(1, share)
    least = sink + window + (0 if budget == 1.0 else max(1, share))  # reads no more than that of a longer one
    assert topk.applies(n) == (n > least)
    zone = topk.zone(n)
    assert (zone.start, zone.end, zone.retrieve) == (sink, max(n - window, sink), max(1, share))

    page = make("page", budget, {"sink": sink, "window": window, "page": 4, "update": 1})
    pages = [list(range(at, at + 4)) for at in range(0, n, 4)]
    # a page of which a token is in the sink or in the window is read with it
    free = [p for p in pages if p[0] >= sink and p[-1] < n - window]
    count = math.ceil(max(1, share) / 4)
    assert page.n_pages(n) == count and page.applies(n) == (len(free) > (0 if budget == 1.0 else count))
    zone = page.zone(n)
    assert zone.start == 4 and zone.end == (free[-1][-1] + 1 if free else 4)
    for later in range(n, n + 9):  # pages leave the window whole, one token a time
        whole = [p for p in (list(range(at, at + 4)) for at in range(4, later, 4)) if p[-1] < later - window]
        assert page.end(zone, later) == (whole[-1][-1] + 1 if whole else 4)


@pytest.mark.parametrize("seed", range(6))
def test_bytes_of_a_step(seed: int) -> None:
    n = 40 + seed
    for name, budget in (("topk", 0.2), ("page", 0.2), ("page", 0.9), ("topk", 1.0), ("page", 1.0)):
        given = {"sink": 2, "window": 5, **({"page": 4} if name == "page" else {})}
        method = make(name, budget, given)
        query, keys, values = tensors(n + 1, seed)
        zone = method.prepare(keys[:, :n], values[:, :n])
        done = method.attend(query, keys, values, zone, SCALE, mark=True)
        assert done.seen is not None
        size = zone.end - zone.start
        # topk looks at every key, page at two extremes of every page; then keys and values of what is read
        seen = int(done.seen.sum()) // HEADS
        looked = HEADS * DIM * 4 * ((n + 1 - seen) if name == "topk" else 2 * size // 4)
        assert done.bytes_read == 2 * HEADS * DIM * 4 * seen + looked, (name, budget)
        formula = method.formula(n, HEADS, DIM, 4)
        assert formula["stored"] == 2 * HEADS * DIM * 4 * n
        assert formula["index"] == (0 if name == "topk" else looked)
        if budget != 1.0:
            assert formula["read"] == done.bytes_read


@pytest.mark.parametrize("seed", range(6))
def test_topk_reads_the_keys_with_the_largest_shares(seed: int) -> None:
    """Shares of the softmax over all keys, summed over the queries of a group: one loud query does not decide."""
    query, keys, values = tensors(30, seed)
    method = make("topk", 4, {"sink": 2, "window": 5})
    zone = method.prepare(keys, values)
    picked = method.select(query, keys, zone, SCALE)
    for head in range(HEADS):
        shares = [0.0] * 30
        for q in query[head]:
            weights = [math.exp(float(q @ k) * SCALE) for k in keys[head]]
            shares = [a + w / sum(weights) for a, w in zip(shares, weights, strict=True)]
        inside = sorted(range(2, 25), key=lambda i: -shares[i])[:4]
        assert sorted(int(i) + 2 for i in picked.positions[head]) == sorted(inside)


@pytest.mark.parametrize("seed", range(4))
def test_what_snapkv_keydiff_and_streaming_score(seed: int) -> None:
    n, window, kernel = 24, 4, 3
    _, keys, values = tensors(n, seed)
    gen = torch.Generator().manual_seed(seed + 50)
    queries = torch.randn(HEADS, GROUP, window, DIM, generator=gen)
    snapkv = make("snapkv", 0.5, {"window": window, "kernel": kernel})
    found = snapkv.score(keys, values, queries, SCALE)
    for head in range(HEADS):
        total = [0.0] * n
        for group in range(GROUP):
            attention = [0.0] * n
            for w in range(window):
                last = n - window + w  # a query sees itself and what precedes it
                weights = [
                    math.exp(float(queries[head, group, w] @ keys[head, i]) * SCALE) for i in range(last + 1)
                ]
                for i in range(n - window):
                    attention[i] += weights[i] / sum(weights)
            for i in range(n - window):
                near = [
                    attention[j] for j in range(i - kernel // 2, i + kernel // 2 + 1) if 0 <= j < n - window
                ]
                total[i] += sum(near) / kernel / GROUP
        assert found[head].tolist() == pytest.approx(total, abs=1e-6)
    found = make("keydiff", 0.5).score(keys, values, None, SCALE)
    for head in range(HEADS):
        unit = [k / k.norm() for k in keys[head]]
        mean = sum(unit) / n  # type: ignore[operator]
        assert found[head].tolist() == pytest.approx([-float(u @ mean / mean.norm()) for u in unit], abs=1e-6)
    for sink, kept in ((0, 5), (1, 5), (4, 12), (4, 4)):
        streaming = make("streaming", kept, {"sink": sink})
        wanted = [*range(sink), *range(n - (kept - sink), n)]
        assert streaming.keep(keys, values, None, SCALE).tolist() == [wanted] * HEADS
        each = streaming.keep_each([keys[0], keys[1, :20]], [values[0], values[1, :20]], None, SCALE, kept)
        assert [one.tolist() for one in each] == [wanted, [*range(sink), *range(20 - (kept - sink), 20)]]


@pytest.mark.parametrize("budget", [0.001, 0.2, 0.9, 1.0, 7])
@pytest.mark.parametrize("n", [8, 23, 64, 65])
def test_what_is_stored_and_read_by_the_formulas(n: int, budget: float) -> None:
    """Three heads of five numbers of two bytes: no two factors are alike."""
    share = max(1, round(budget * n) if isinstance(budget, float) else min(budget, n))
    one = 3 * 5 * 2  # bytes of a key, or a value, of one token
    found = make("topk", budget, {"sink": 2, "window": 5}).formula(n, 3, 5, 2)
    values = n - (n - 5 - 2) + share + 1  # what is always read, what is chosen, and the new token
    assert found == {"stored": 2 * one * n, "read": one * (n + 1) + one * values, "index": 0}
    for size in (1, 4):
        page = make("page", budget, {"sink": 2, "window": 5, "page": size, "update": 1})
        free = [p for p in range(0, n, size) if p >= 2 and p + size <= n - 5]
        chosen = min(math.ceil(share / size), len(free))
        index = 2 * one * len(free)  # two extremes a page
        tokens = n - len(free) * size + chosen * size + 1
        assert page.formula(n, 3, 5, 2) == {
            "stored": 2 * one * n,
            "read": 2 * one * tokens + index,
            "index": index,
        }


def test_pages_of_one_token_are_counted_one_by_one() -> None:
    least = make("page", 0.001, {"sink": 0, "window": 0, "page": 1})
    assert [least.n_pages(n) for n in (1, 100, 1500, 1501)] == [1, 1, 2, 2]
    whole = make("page", 1.0, {"sink": 2, "window": 5, "page": 1})
    assert [whole.applies(n) for n in (6, 7, 8, 9)] == [False, False, True, True]


@pytest.mark.parametrize("seed", range(6))
def test_pages_are_ranked_by_their_share_of_the_largest_products(seed: int) -> None:
    """The most that a key between a page's extremes could score, as a share over pages, summed over the queries."""
    query, keys, values = tensors(42, seed)
    for scale in (0.05, SCALE, 3.0):
        method = make("page", 8, {"sink": 2, "window": 5, "page": 4})
        zone = method.prepare(keys, values)
        picked = method.select(query, keys, zone, scale)
        for head in range(HEADS):
            pages = [keys[head, at : at + 4] for at in range(zone.start, zone.end, 4)]
            shares = [0.0] * len(pages)
            for q in query[head]:
                most = [
                    sum(max(float(x * y) for y in page[:, d]) for d, x in enumerate(q)) * scale
                    for page in pages
                ]
                weights = [math.exp(m) for m in most]
                shares = [a + w / sum(weights) for a, w in zip(shares, weights, strict=True)]
            best = sorted(range(len(pages)), key=lambda i: -shares[i])[:2]
            wanted = sorted(4 * i + place for i in best for place in range(4))
            assert sorted(picked.tokens[head].tolist()) == wanted


DEFAULTS = {
    "topk": (0.05, False, {"sink": 4, "window": 64, "update": 1024}),
    "page": (0.05, False, {"sink": 4, "window": 64, "update": 1024, "page": 16, "dense": 0}),
    "streaming": (0.5, True, {"sink": 4, "window": 1, "every": 1}),
    "keydiff": (0.5, True, {"sink": 0, "window": 0}),
    "snapkv": (0.5, True, {"window": 64, "kernel": 5}),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_papers(name: str) -> None:
    """In the table of methods, and in a method that is made without it."""
    budget, frees, knobs = DEFAULTS[name]
    found = spec(name)
    assert (found.budget, found.frees) == (budget, frees)
    assert {knob: found.params[knob] for knob in knobs} == knobs
    versions = {"page": 2, "snapkv": 2}  # part of a run's fingerprint
    assert KV_METHODS.get(name).facts["version"] == versions.get(name, 1)
    bare = found.target(name=name, budget=budget, frees=frees)
    for knob in ("page", "kernel", "update"):
        if knob in knobs:
            assert getattr(bare, knob) == knobs[knob]
    for knob in knobs:
        low = 1 if knob in ("page", "kernel", "update") else 0
        assert getattr(make(name, budget, {knob: low}), knob) == low
        with pytest.raises(IcrError, match=f"{knob}={low - 1} must be a whole number >= {low}"):
            make(name, budget, {knob: low - 1})
    if name == "snapkv":
        with pytest.raises(IcrError, match="kernel=4 must be odd"):
            make(name, budget, {"kernel": 4})
