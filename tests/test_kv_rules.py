"""Sizes, bounds and scores of KV methods against loops over single tokens."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from icr_tasks.kv import make  # noqa: E402

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
