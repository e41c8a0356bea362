"""The device path of a compressed decode step on a GPU: a CUDA graph recorded once answers as separate launches at every
later length, and nothing in a step waits for the device."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU: torch sees none here", allow_module_level=True)
if importlib.util.find_spec("triton") is None:
    pytest.skip("needs triton", allow_module_level=True)

import test_kv_hf as hf  # noqa: E402

from icr_tasks.kv import make  # noqa: E402
from icr_tasks.kv.hf import attention, decode  # noqa: E402
from icr_tasks.kv.vllm import counters, fused, paged, sparse  # noqa: E402

HEADS, GROUP, BLOCK, DIM, ROWS, LONGEST = 4, 7, 16, 128, 3, 6000
SETTINGS: dict[str, dict[str, Any]] = {
    "page": {"budget": 0.05, "page": 16, "update": 64},
    "topk": {"budget": 0.05, "update": 64},
    "steady": {},
}


def _method(name: str) -> Any:
    knobs = {**SETTINGS[name]}
    return make(name, knobs.pop("budget", None), knobs)


def _cache(dtype: Any, page: int | None) -> tuple[Any, paged.Cache, Any]:
    """A cache of random keys and values for ROWS sequences of LONGEST tokens, in blocks in random order."""
    gen = torch.Generator("cuda").manual_seed(0)
    each = -(-LONGEST // BLOCK)
    whole = torch.randn(ROWS * each, HEADS, BLOCK, 2 * DIM, generator=gen, device="cuda").to(dtype)
    keys, values = whole.transpose(1, 2).split(DIM, -1)
    cache = paged.Cache(keys, values, page)
    tables = torch.randperm(ROWS * each, generator=gen, device="cuda").int().view(ROWS, each)
    for row in range(ROWS):
        at = torch.arange(LONGEST, device="cuda")
        cache.wrote(tables[row].long()[at // BLOCK] * BLOCK + at % BLOCK)
    return whole, cache, tables


def _tensors(batch: paged.Batch) -> dict[str, Any]:
    found = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", SETTINGS)
def test_one_graph_answers_at_every_length(name: str, dtype: str) -> None:
    method = _method(name)
    _, cache, tables = _cache(getattr(torch, dtype), 16 if name == "page" else None)
    steps = [[(5000, n), (900, n - 3800), (3000, 3000 + n % 97)] for n in (5001, 5002, 5600, 5999)]

    def batch(lengths: list[tuple[int, int]]) -> paged.Batch:
        return paged.Batch.of([paged.share(method, *pair) for pair in lengths], tables)

    widest = batch([(LONGEST - 1, LONGEST)] * ROWS)
    static = replace(widest, **{k: v.clone() for k, v in _tensors(widest).items()})
    query = torch.randn(ROWS, HEADS, GROUP, DIM, device="cuda").to(getattr(torch, dtype))

    def run() -> Any:
        return paged.decode(cache, query, static, DIM**-0.5)

    graph, out = _recorded(run)
    for lengths in steps:
        now = batch(lengths)
        for key, tensor in _tensors(now).items():
            getattr(static, key).copy_(tensor)
        query.copy_(torch.randn_like(query))
        out.fill_(float("nan"))
        graph.replay()
        expected = paged.decode(cache, query, now, DIM**-0.5)
        torch.testing.assert_close(out, expected, atol=1e-5 if dtype == "float32" else 4e-3, rtol=0)


def _recorded(run: Callable[[], Any]) -> tuple[Any, Any]:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):  # kernels are compiled, workspaces made
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    return graph, out


@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_does_not_wait_for_the_device(name: str) -> None:
    whole, _, tables = _cache(torch.bfloat16, None)
    impl = SimpleNamespace(head_size=DIM, num_kv_heads=HEADS, scale=DIM**-0.5)
    layer = fused.Fused(impl, _method(name))
    file = counters.new()
    told = counters.Counters(file)
    slots = torch.arange(len(whole) * BLOCK, device="cuda")
    layer.wrote(whole, slots)
    query = torch.randn(ROWS, HEADS * GROUP, DIM, device="cuda").bfloat16()
    output = torch.zeros_like(query)

    def step(length: int) -> None:
        rows = [sparse.Step(row, row, length, 4000, f"r{row}") for row in range(ROWS)]
        layer.wrote(whole, slots[:ROWS])
        layer.attend(sparse.Plan(_method(name), rows, told, tables, BLOCK, layers=1), query, output)

    step(4001)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for length in range(4002, 4006):
            step(length)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        file.unlink()
    assert torch.isfinite(output).all() and (output != 0).any()


@pytest.mark.parametrize("entries", [100, 2048, 9000])
def test_the_chosen_are_those_of_a_full_sort(entries: int) -> None:
    """Of long zones, with rows that want different numbers and entries of no weight."""
    gen = torch.Generator("cuda").manual_seed(entries)
    logits = torch.randn(ROWS, HEADS, GROUP, entries, generator=gen, device="cuda") * 8
    logits[..., entries // 2 : entries // 2 + 9] = float("-inf")
    head = torch.tensor([0, 3, entries - 60], dtype=torch.int32, device="cuda")
    tail = torch.tensor([entries, entries - 20, entries], dtype=torch.int32, device="cuda")
    wanted = torch.tensor([entries // 20, 40, 0], dtype=torch.int32, device="cuda")
    batch: Any = SimpleNamespace(lengths=head, head=head, tail=tail, chosen=wanted, width=int(wanted.max()))
    found = paged.best(logits, batch)
    weights = torch.softmax(logits.double(), -1).sum(2)
    for row in range(ROWS):
        zone, n = weights[row, :, head[row] : tail[row]], int(wanted[row])
        ours = found[row, :, :n].long()
        assert (ours >= head[row]).all() and (ours < tail[row]).all() and (ours.diff() > 0).all()
        kept = zone.gather(1, ours - head[row]).sum(1)
        torch.testing.assert_close(kept, zone.topk(n).values.sum(1), rtol=1e-5, atol=0)


# ---- icr-hf --------------------------------------------------------------------------------------

IN_HF: dict[str, tuple[float | None, dict[str, Any]]] = {
    "full": (None, {}),
    "topk": (0.1, {"sink": 2, "window": 8, "update": 12}),
    "page": (0.1, {"page": 8, "sink": 2, "window": 8}),
    "cluster": (0.05, {"sink": 2, "window": 8, "update": 12, "segment": 128}),
    "steady": (None, {"sink": 2, "window": 8}),
    "streaming": (0.3, {}),
    "snapkv": (0.3, {"window": 8}),
    "keydiff": (0.3, {}),
    "chunkkv": (0.3, {"window": 8}),
    "expected": (0.3, {}),
    "kivi": (None, {}),
}


@pytest.mark.parametrize("name", IN_HF)
def test_icr_hf_answers_as_on_a_cpu(name: str) -> None:
    """The same tokens and log-probabilities in float32, two prompts of different lengths in a batch; memory is that of
    the GPU."""
    gen = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 90, (n,), generator=gen).tolist() for n in (400, 250)]
    found = []
    for device in ("cpu", "cuda"):
        model = hf.model("qwen3").to(device)
        model.set_attn_implementation(attention.register())
        budget, knobs = IN_HF[name]
        method = None if name == "full" else make(name, budget, knobs)
        found.append(decode.generate(model, decode.Job(prompts, 16, frozenset(), keep_logits=True), method))
    for ours, theirs in zip(*found, strict=True):
        assert ours.tokens == theirs.tokens
        for a, b in zip(ours.logits, theirs.logits, strict=True):
            torch.testing.assert_close(a.float().cpu(), b.float().cpu(), atol=2e-3, rtol=1e-3)
        told = {"bytes_read_per_step", "bytes_stored_per_token", "attended_fraction", "steps", "sparse_steps"}
        assert {k: ours.kv[k] for k in told} == pytest.approx({k: theirs.kv[k] for k in told}, rel=1e-3)
        assert 0 < theirs.kv["peak_memory_bytes"] <= torch.cuda.max_memory_allocated()
