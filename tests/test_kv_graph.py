"""The device path of a compressed decode step reads no value on the host: it runs on tensors that have none, and what it
launches follows from shapes and host numbers alone. That is what a CUDA graph asks of it; no GPU is needed to see it."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("triton") is None:
    pytest.skip("needs triton", allow_module_level=True)

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv import make  # noqa: E402
from icr_tasks.kv.vllm import fused, graphs, kernels, paged, sparse  # noqa: E402

HEADS, GROUP, BLOCK, DIM = 2, 3, 16, 64
SETTINGS: dict[str, dict[str, Any]] = {
    "page": {"budget": 0.2, "page": 16, "sink": 4, "window": 20, "update": 32},
    "topk": {"budget": 0.1, "sink": 4, "window": 20, "update": 32},
    "steady": {"sink": 4, "window": 20},
    "keydiff": {"budget": 0.5},
}
NEEDED = {
    "page": ["bound_kernel", "choose_kernel", "decode_kernel", "merge_kernel"],
    "topk": ["score_kernel", "choose_kernel", "decode_kernel", "merge_kernel"],
    "steady": ["decode_kernel", "merge_kernel"],
    "keydiff": ["decode_kernel", "merge_kernel"],
}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """(kernel, grid, shapes of tensors and host numbers) of every launch, in place of the launches."""
    found: list[tuple[Any, ...]] = []

    class Kernel:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: Any) -> Any:
            assert all(type(n) is int for n in grid), "a grid that is not fixed on the host"

            def launch(*args: Any, **sizes: Any) -> None:
                assert all(isinstance(a, torch.Tensor) or type(a) in (int, float) for a in args)
                told = [tuple(a.shape) if isinstance(a, torch.Tensor) else a for a in args]
                found.append((self.name, grid, told, sizes))

            return launch

    for name in [name for name in vars(kernels) if name.endswith("_kernel")]:
        monkeypatch.setattr(kernels, name, Kernel(name))
    return found


def empty(*shape: int, dtype: Any = torch.bfloat16) -> Any:
    """A tensor without values."""
    return torch.empty(shape, dtype=dtype, device="meta")


def made_by(name: str) -> Any:
    knobs = {**SETTINGS[name]}
    return make(name, knobs.pop("budget", None), knobs)


def made(name: str, lengths: list[tuple[int, int]]) -> tuple[list[paged.Share], paged.Batch]:
    method = made_by(name)
    shares = [paged.share(method, prompt, n) for n, prompt in lengths]
    batch = paged.Batch.of(shares, torch.zeros(len(shares), 40, dtype=torch.int32))
    there = {k: empty(*v.shape, dtype=v.dtype) for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
    return shares, replace(batch, **there)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_layer_runs_on_tensors_without_values(name: str, launched: list[tuple[Any, ...]]) -> None:
    """Writing the cache, ranking, choosing and attending: a step that looked at a value would raise here."""
    with pytest.raises(RuntimeError):
        int(empty(1).sum())  # which is how one is seen
    shares, batch = made(name, [(300, 290), (129, 100)])
    impl = SimpleNamespace(num_kv_heads=HEADS, head_size=DIM, scale=DIM**-0.5)
    layer = fused.Fused(impl, None)
    cache = empty(50, HEADS, BLOCK, 2 * DIM)
    keys, values = cache.transpose(1, 2).split(DIM, -1)
    layer._cache = paged.Cache(keys, values, 16)
    layer._cache.wrote(empty(7, dtype=torch.int64))
    assert [kernel for kernel, *_ in launched] == ["extremes_kernel"]
    launched.clear()
    made_of = fused.Made(batch, empty(2, dtype=torch.int64))
    steps = [sparse.Step(0, 0, 300, 290, "a"), sparse.Step(1, 1, 129, 100, "b")]
    plan: Any = SimpleNamespace(
        made=made_of, steps=steps, method=made_by(name), table=empty(2, 40, dtype=torch.int32), block=BLOCK
    )
    layer._whole, output = cache, empty(9, HEADS * GROUP * DIM)
    layer.attend(plan, empty(9, HEADS * GROUP, DIM), output)
    assert [kernel for kernel, *_ in launched] == NEEDED[name]


@pytest.mark.parametrize("name", SETTINGS)
def test_launches_follow_from_shapes_and_bounds_alone(name: str, launched: list[tuple[Any, ...]]) -> None:
    """Steps of other lengths under the same bounds are the same launches: those of a graph, recorded once."""
    bounds = {"width": 40 if name != "steady" else 0, "longest": 640, "most": 640}
    kept = empty(2, HEADS, 40, dtype=torch.int32) if name == "keydiff" else None
    seen = []
    for lengths in ([(300, 290), (129, 100)], [(620, 300), (200, 199)]):
        _, batch = made(name, lengths)
        cache = paged.Cache(empty(50, BLOCK, HEADS, DIM), empty(50, BLOCK, HEADS, DIM), 16)
        paged.decode(cache, empty(2, HEADS, GROUP, DIM), replace(batch, **bounds), DIM**-0.5, kept)
        seen.append([*launched])
        launched.clear()
    assert seen[0] == seen[1] and len(seen[0]) == len(NEEDED[name])


# ---- buffers of recorded graphs ------------------------------------------------------------------


def batch_of(counts: list[int], lengths: list[int]) -> Any:
    starts = torch.tensor([0, *counts]).cumsum(0)
    return SimpleNamespace(query_start_loc_cpu=starts, seq_lens_cpu_upper_bound=torch.tensor(lengths))


def test_what_the_rows_of_a_graph_read() -> None:
    """A generated token by its method; a prompt's last token, alone in its row, everything; a row of no request nothing."""
    method = made_by("page")
    plan: Any = SimpleNamespace(method=method, steps=[sparse.Step(0, 0, 300, 290, "a")])
    found = graphs.rows(plan, batch_of([1, 1, 0], [300, 77, 0]))
    assert found is not None
    assert found[0] == paged.share(method, 290, 300) and found[0].sparse
    assert (found[1].length, found[1].tokens, found[1].sparse) == (77, 77, False)
    assert (found[2].length, found[2].tokens) == (0, 0)
    assert graphs.rows(plan, batch_of([1, 5], [300, 77])) is None


def test_the_buffers_are_the_same_at_every_step() -> None:
    method = made_by("page")
    static = graphs.Static(method, rows=4, longest=2000, device="cpu")
    table = torch.zeros(4, 125, dtype=torch.int32)
    first = static.dummy(2, table[:2])
    assert not first.lengths.any() and (first.width, first.longest) == (static.width, 2000)
    shares = [paged.share(method, 290, 300), paged.Share(0, 0, 0, 0, 16)]
    second = static.filled(shares, table[:2])
    for name in ("lengths", "head", "chosen", "tail"):
        assert getattr(first, name).data_ptr() == getattr(second, name).data_ptr()
    assert first.lengths.tolist() == [300, 0] and first.chosen.tolist() == [shares[0].chosen, 0]
    assert (second.width, second.most) == (first.width, first.most)
    with pytest.raises(IcrError, match="enforce_eager=True"):
        static.filled([paged.Share(2001, 0, 1, 3, 16)], table[:1])
    with pytest.raises(IcrError, match="enforce_eager=True"):
        static.filled([paged.Share(1900, 0, static.width + 1, 90, 16)], table[:1])


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("page@0.05", True),
        ("topk@0.05", True),
        ("steady", True),
        ("page@0.05,page=12", False),
        ("keydiff@0.5", False),
    ],
)
def test_which_settings_graphs_hold(text: str, held: bool) -> None:
    assert graphs.holds(sparse.method_of(text), 16) is held
    assert not graphs.holds(None, 16)
