"""The short way of a reader's step on a CPU: the rows it copies, whatever the layout of a cache, and its answers."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from icr_tasks.kv import make, rows  # noqa: E402

HEADS, N, DIM = 3, 96, 8


def _layouts() -> dict[str, Any]:
    plain = torch.randn(HEADS, N, DIM, generator=torch.Generator().manual_seed(0))
    roomy = torch.zeros(HEADS, N + 31, DIM)
    roomy[:, 7 : 7 + N] = plain
    joined = torch.zeros(HEADS, N, 2 * DIM)  # keys and values side by side
    joined[..., DIM:] = plain
    return {
        "plain": plain,
        "room between heads": roomy[:, 7 : 7 + N],
        "heads inside": plain.transpose(0, 1).contiguous().transpose(0, 1),
        "beside others": joined[..., DIM:],
        "by dimension": plain.transpose(1, 2).contiguous().transpose(1, 2),
        "one head": plain[:1],
    }


@pytest.mark.parametrize("name", _layouts())
@pytest.mark.parametrize(("run", "start"), [(1, 0), (1, 5), (4, 0), (4, 8), (5, 3)])
def test_runs_of_rows_are_taken_from_any_layout(name: str, run: int, start: int) -> None:
    x = _layouts()[name]
    last = (N - start) // run - 1
    at = torch.tensor([[0, last, 3], [last, 2, 2], [1, 0, last]])[: len(x)]
    found = rows.take(x, at, run, start)
    for head in range(len(x)):
        expected = [x[head, start + int(p) * run + i].tolist() for p in at[head] for i in range(run)]
        assert found[head].tolist() == expected


@pytest.mark.parametrize(
    ("method", "knobs"),
    [
        ("topk", {"sink": 2, "window": 8}),
        ("page", {"page": 4, "window": 8}),
        ("steady", {"window": 8}),
        ("cluster", {"update": 16, "size": 4, "estimation": 0.3}),
        ("cluster", {"update": 16, "size": 4, "estimation": 0}),
    ],
)
def test_the_short_way_answers_as_the_long_one(method: str, knobs: dict[str, Any]) -> None:
    """Same tokens, same softmax: they differ by the order of sums alone, also with clusters that nobody chose."""
    draw = torch.Generator().manual_seed(1)
    keys = torch.randn(2, 400, DIM, generator=draw)
    keys[0, 40:300] = keys[0, 40:41]  # one cluster takes them all, and leaves others empty
    values, query = torch.randn(2, 400, DIM, generator=draw), torch.randn(2, 3, DIM, generator=draw)
    chosen = make(method, None if method == "steady" else 0.1, knobs)
    zone, scale = chosen.prepare(keys, values), DIM**-0.5
    picked = chosen.select(query, keys, zone, scale)
    if method == "cluster":
        assert bool((zone.index.sizes == 0).any())
    long = chosen._joined(query, keys, values, zone, picked, scale, None)
    short = rows.attention(query, keys, values, zone, picked, scale)
    torch.testing.assert_close(short, long, atol=2e-6, rtol=0)
    done = chosen.attend(query, keys, values, zone, scale, mark=True)
    assert torch.equal(done.out, short) and done.seen is not None
    assert done.tokens_read * 2 == int(done.seen.sum())


@pytest.mark.parametrize("n", [3, 255, 256, 700])
def test_blocks_give_the_products_of_their_rows(n: int) -> None:
    draw = torch.Generator().manual_seed(2)
    x, query = torch.randn(HEADS, n, DIM, generator=draw), torch.randn(HEADS, 5, DIM, generator=draw)
    blocks = rows.Blocks(x)
    assert torch.equal(blocks.plain(), x) and blocks.bytes == HEADS * n * DIM * 4
    torch.testing.assert_close(blocks.products(query), query @ x.transpose(1, 2), atol=1e-5, rtol=0)
